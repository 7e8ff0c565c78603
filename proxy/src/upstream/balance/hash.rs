//! Consistent hashing: a ring and a Maglev table, point for point as Envoy builds them, so that
//! a fleet of both sends a key to the same endpoint.
//!
//! Source of the layouts: Envoy's documentation of `ring_hash_lb_config` (XX_HASH,
//! `address:port_i` points) and Google's Maglev paper, section 3.4.

use xxhash_rust::xxh64::xxh64;

/// Largest ring, Envoy's default.
const RING_MAXIMUM: u64 = 8 * 1024 * 1024;

/// Hash of a request key.
#[must_use]
pub fn key_hash(key: &str) -> u64 {
    xxh64(key.as_bytes(), 0)
}

/// Points on a circle; a key belongs to the next point.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are bounded by RING_MAXIMUM; Envoy computes in floating point too"
    )]
    pub(super) fn new(keys: &[String], weights: &[u32], minimum: u64) -> Self {
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let least = weights.iter().copied().min().unwrap_or(1);
        let least = f64::from(least) / total.max(1.0);
        let minimum = minimum.clamp(1, RING_MAXIMUM) as f64;
        let scale = ((least * minimum).ceil() / least).min(RING_MAXIMUM as f64);
        let mut points = Vec::with_capacity(scale.ceil().max(0.0) as usize);
        let (mut current, mut target) = (0.0_f64, 0.0_f64);
        for ((key, weight), slot) in keys.iter().zip(weights).zip(0_u32..) {
            target += scale * f64::from(*weight) / total;
            let mut nth = 0_u32;
            while current < target {
                points.push((xxh64(format!("{key}_{nth}").as_bytes(), 0), slot));
                nth += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Self { points }
    }

    pub(super) fn find(&self, hash: u64, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        walk(self.points.len(), start, |at| self.points.get(at).map(|(_, slot)| *slot), usable)
    }
}

/// A table in which every endpoint holds its share of the places.
#[derive(Debug)]
pub(super) struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "the table size is bounded and slots are u32 by construction"
    )]
    pub(super) fn new(keys: &[String], weights: &[u32], size: u64) -> Self {
        const EMPTY: u32 = u32::MAX;
        const LARGEST: u64 = 5_000_011;
        let size = size.clamp(2, LARGEST);
        if keys.is_empty() {
            return Self { table: Vec::new() };
        }
        let heaviest = f64::from(weights.iter().copied().max().unwrap_or(1));
        let mut entries: Vec<(u64, u64, u64, f64)> = keys
            .iter()
            .map(|key| {
                let offset = xxh64(key.as_bytes(), 0) % size;
                let skip = xxh64(key.as_bytes(), 1) % (size - 1) + 1;
                (offset, skip, 0, 0.0)
            })
            .collect();
        let mut table = vec![EMPTY; size as usize];
        let (mut filled, mut round) = (0_u64, 1_u64);
        while filled < size {
            for ((offset, skip, next, target), (slot, weight)) in
                entries.iter_mut().zip((0_u32..).zip(weights))
            {
                if filled == size || (round as f64) * f64::from(*weight) < *target {
                    continue;
                }
                *target += heaviest;
                loop {
                    let at = (*offset + *skip * *next) % size;
                    *next += 1;
                    if let Some(place) = table.get_mut(at as usize)
                        && *place == EMPTY
                    {
                        *place = slot;
                        break;
                    }
                }
                filled += 1;
            }
            round += 1;
        }
        Self { table }
    }

    pub(super) fn find(&self, hash: u64, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let size = self.table.len();
        let start = usize::try_from(hash % (size.max(1) as u64)).unwrap_or(0);
        walk(size, start, |at| self.table.get(at).copied(), usable)
    }
}

/// The first usable slot from `start` onwards, once round.
fn walk(
    size: usize,
    start: usize,
    slot_at: impl Fn(usize) -> Option<u32>,
    usable: &impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut last = None;
    for step in 0..size {
        let slot = slot_at((start + step) % size)?;
        if last == Some(slot) {
            continue;
        }
        last = Some(slot);
        let slot = usize::try_from(slot).ok()?;
        if usable(slot) {
            return Some(slot);
        }
    }
    None
}
