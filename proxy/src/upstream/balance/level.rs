//! The endpoints of one priority with the tables of their policy.

use super::hash::{Maglev, Ring};
use super::{Backend, Wish};
use crate::config::Balance;
use std::cell::{Cell, RefCell};

/// How often chance is asked before the endpoints are gone through one by one.
const DRAWS: usize = 8;

#[derive(Debug)]
enum Table {
    LeastRequest,
    Random,
    RoundRobin { next: Cell<usize>, credit: RefCell<Vec<i64>> },
    Ring(Ring),
    Maglev(Maglev),
}

/// One priority.
#[derive(Debug)]
pub(super) struct Level {
    /// Indexes into the cluster's endpoints.
    members: Vec<usize>,
    /// Running sums of weights; empty when all weights are equal.
    sums: Vec<u64>,
    table: Table,
}

impl Level {
    pub(super) fn new<B: Backend>(policy: Balance, members: &[usize], backends: &[B]) -> Self {
        let weights: Vec<u32> = members
            .iter()
            .map(|index| backends.get(*index).map_or(1, |b| b.weight().max(1)))
            .collect();
        let keys = || -> Vec<String> {
            members
                .iter()
                .map(|index| backends.get(*index).map(Backend::hash_key).unwrap_or_default())
                .collect()
        };
        let table = match policy {
            Balance::LeastRequest | Balance::ClusterProvided => Table::LeastRequest,
            Balance::Random => Table::Random,
            Balance::RoundRobin => Table::RoundRobin {
                next: Cell::new(0),
                credit: RefCell::new(vec![0; members.len()]),
            },
            Balance::RingHash { minimum_size } => {
                Table::Ring(Ring::new(&keys(), &weights, minimum_size))
            }
            Balance::Maglev { table_size } => {
                Table::Maglev(Maglev::new(&keys(), &weights, table_size))
            }
        };
        let uniform = weights.windows(2).all(|pair| pair.first() == pair.last());
        let sums = if uniform {
            Vec::new()
        } else {
            weights
                .iter()
                .scan(0_u64, |sum, weight| {
                    *sum += u64::from(*weight);
                    Some(*sum)
                })
                .collect()
        };
        Self { members: members.to_vec(), sums, table }
    }

    /// (available, all) endpoints.
    pub(super) fn health<B: Backend>(&self, backends: &[B]) -> (usize, usize) {
        let healthy = self
            .members
            .iter()
            .filter(|index| backends.get(**index).is_some_and(Backend::is_available))
            .count();
        (healthy, self.members.len())
    }

    pub(super) fn pick<B: Backend>(
        &self,
        backends: &[B],
        wish: Wish<'_>,
        in_panic: &impl Fn() -> bool,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let available = |slot: usize| {
            self.backend(backends, slot).is_some_and(|b| b.is_available() || in_panic())
        };
        let wanted = |slot: usize| {
            available(slot) && self.members.get(slot).is_some_and(|i| !wish.avoid.contains(i))
        };
        let slot = match self.choose(backends, wish, &wanted, random) {
            None if !wish.avoid.is_empty() => self.choose(backends, wish, &available, random),
            found => found,
        }?;
        self.members.get(slot).copied()
    }

    fn choose<B: Backend>(
        &self,
        backends: &[B],
        wish: Wish<'_>,
        usable: &impl Fn(usize) -> bool,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        match &self.table {
            Table::Random => self.draw(usable, random),
            Table::LeastRequest => {
                let first = self.draw(usable, random)?;
                if self.members.len() == 1 {
                    return Some(first);
                }
                let second = self.draw(usable, random)?;
                Some(self.less_loaded(backends, first, second))
            }
            Table::RoundRobin { next, credit } => {
                if self.sums.is_empty() {
                    self.in_turn(next, usable)
                } else {
                    self.smooth_turn(backends, &mut credit.borrow_mut(), usable)
                }
            }
            Table::Ring(ring) => ring.find(wish.hash.unwrap_or_else(random), usable),
            Table::Maglev(maglev) => maglev.find(wish.hash.unwrap_or_else(random), usable),
        }
    }

    fn backend<'b, B>(&self, backends: &'b [B], slot: usize) -> Option<&'b B> {
        backends.get(*self.members.get(slot)?)
    }

    /// A usable slot by weighted chance.
    fn draw(
        &self,
        usable: &impl Fn(usize) -> bool,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let count = self.members.len();
        if count == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let slot = self.ticket(random());
            if usable(slot) {
                return Some(slot);
            }
        }
        let left: Vec<usize> = (0..count).filter(|slot| usable(*slot)).collect();
        left.get(scale(random(), left.len())).copied()
    }

    fn ticket(&self, random: u64) -> usize {
        match self.sums.last() {
            None => scale(random, self.members.len()),
            Some(total) => {
                let ticket = random % total;
                self.sums.partition_point(|sum| *sum <= ticket)
            }
        }
    }

    /// Load is requests in flight divided by weight; equal load keeps the first, so that an
    /// idle cluster is spread by weight alone.
    fn less_loaded<B: Backend>(&self, backends: &[B], first: usize, second: usize) -> usize {
        let load = |slot| {
            self.backend(backends, slot)
                .map_or((0, 1), |b| (u64::from(b.active()), u64::from(b.weight().max(1))))
        };
        let ((a, a_weight), (b, b_weight)) = (load(first), load(second));
        if b * a_weight < a * b_weight { second } else { first }
    }

    fn in_turn(&self, next: &Cell<usize>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.members.len();
        for step in 0..count {
            let slot = (next.get() + step) % count;
            if usable(slot) {
                next.set(slot + 1);
                return Some(slot);
            }
        }
        None
    }

    /// Smooth weighted round robin: everyone earns its weight, the richest pays for all.
    fn smooth_turn<B: Backend>(
        &self,
        backends: &[B],
        credit: &mut [i64],
        usable: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (slot, credit) in credit.iter_mut().enumerate() {
            if !usable(slot) {
                continue;
            }
            let weight = self.backend(backends, slot).map_or(1, |b| i64::from(b.weight().max(1)));
            *credit += weight;
            total += weight;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((slot, *credit));
            }
        }
        let (slot, _) = best?;
        if let Some(credit) = credit.get_mut(slot) {
            *credit -= total;
        }
        Some(slot)
    }
}

/// A number below `count` from a random one, without division.
fn scale(random: u64, count: usize) -> usize {
    let wide = (u128::from(random) * count as u128) >> 64;
    usize::try_from(wide).unwrap_or(0)
}
