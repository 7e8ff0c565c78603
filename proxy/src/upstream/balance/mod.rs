//! Load balancing: which endpoint of a cluster takes the next request.
//!
//! Pure: endpoints come in as weights and load, chance comes in as numbers. Priorities follow
//! Envoy's arithmetic (overprovisioning factor 1.4, panic threshold). Knows no connections.

mod hash;
mod level;

use crate::config::Balance;
use level::Level;
use std::cell::OnceCell;

pub use hash::key_hash;

/// What a balancer must know of an endpoint.
pub trait Backend {
    /// Share of requests, at least 1.
    fn weight(&self) -> u32;
    /// Requests in flight.
    fn active(&self) -> u32;
    /// 0 is used first.
    fn priority(&self) -> u32;
    /// May be picked now.
    fn is_available(&self) -> bool;
    /// `address:port`, the key of consistent hashing.
    fn hash_key(&self) -> String;
}

/// What a pick depends on beside the endpoints.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// Hash of the request, for consistent hashing.
    pub hash: Option<u64>,
    /// Endpoints (by index) that should not be picked again.
    pub avoid: &'a [usize],
}

/// The balancer of one cluster; built anew when endpoints change.
#[derive(Debug)]
pub struct Balancer {
    levels: Vec<Level>,
    panic_threshold: f64,
}

impl Balancer {
    /// Builds the tables for `backends`.
    #[must_use]
    pub fn new<B: Backend>(policy: Balance, panic_threshold: f64, backends: &[B]) -> Self {
        let mut priorities: Vec<u32> = backends.iter().map(Backend::priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let levels = priorities
            .into_iter()
            .map(|priority| {
                let members: Vec<usize> = (0..backends.len())
                    .filter(|index| backends.get(*index).is_some_and(|b| b.priority() == priority))
                    .collect();
                Level::new(policy, &members, backends)
            })
            .collect();
        Self { levels, panic_threshold }
    }

    /// Index of the endpoint to use, or `None` when none may be picked.
    pub fn pick<B: Backend>(
        &self,
        backends: &[B],
        wish: Wish<'_>,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        if let [only] = self.levels.as_slice() {
            // Whether there is a panic matters only once an endpoint is met that may not be picked.
            let panic = OnceCell::new();
            let in_panic = || {
                *panic.get_or_init(|| {
                    let (healthy, total) = only.health(backends);
                    is_panic(healthy, total, self.panic_threshold)
                })
            };
            return only.pick(backends, wish, &in_panic, random);
        }
        let health: Vec<(usize, usize)> =
            self.levels.iter().map(|level| level.health(backends)).collect();
        let loads = priority_loads(&health);
        let mut ticket = u32::try_from(random() % 100).unwrap_or(0);
        let chosen = loads.iter().position(|share| {
            let taken = ticket < *share;
            ticket = ticket.saturating_sub(*share);
            taken
        });
        let index = chosen.unwrap_or(0);
        let (healthy, total) = health.get(index).copied().unwrap_or((0, 0));
        let panic = is_panic(healthy, total, self.panic_threshold);
        self.levels.get(index)?.pick(backends, wish, &|| panic, random)
    }
}

#[expect(clippy::cast_precision_loss, reason = "endpoint counts are far below 2^52")]
fn is_panic(healthy: usize, total: usize, threshold: f64) -> bool {
    total > 0 && threshold > 0.0 && (healthy as f64) * 100.0 / (total as f64) < threshold
}

/// Percent of requests for each priority from its (healthy, all) endpoints: each level takes
/// 1.4 times its healthy share of what is left. All zero when nothing is healthy.
#[must_use]
pub fn priority_loads(health: &[(usize, usize)]) -> Vec<u32> {
    let scores: Vec<u32> = health
        .iter()
        .map(|(healthy, total)| {
            let score = if *total == 0 { 0 } else { healthy * 140 / total };
            u32::try_from(score.min(100)).unwrap_or(100)
        })
        .collect();
    let sum: u32 = scores.iter().sum::<u32>().min(100);
    if sum == 0 {
        return vec![0; health.len()];
    }
    let mut left = 100;
    let mut loads: Vec<u32> = scores
        .iter()
        .map(|score| {
            let load = (score * 100 / sum).min(left);
            left -= load;
            load
        })
        .collect();
    if left > 0
        && let Some(first) = scores.iter().position(|score| *score > 0)
        && let Some(load) = loads.get_mut(first)
    {
        *load += left;
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Fake {
        name: u16,
        weight: u32,
        active: u32,
        priority: u32,
        up: bool,
    }

    impl Backend for Fake {
        fn weight(&self) -> u32 {
            self.weight
        }
        fn active(&self) -> u32 {
            self.active
        }
        fn priority(&self) -> u32 {
            self.priority
        }
        fn is_available(&self) -> bool {
            self.up
        }
        fn hash_key(&self) -> String {
            format!("10.0.0.1:{}", self.name)
        }
    }

    fn fakes(weights: &[u32]) -> Vec<Fake> {
        weights
            .iter()
            .zip(1..)
            .map(|(weight, name)| Fake { name, weight: *weight, active: 0, priority: 0, up: true })
            .collect()
    }

    fn chance(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }
    }

    fn counts(policy: Balance, backends: &[Fake], rounds: usize) -> Vec<usize> {
        let balancer = Balancer::new(policy, 0.0, backends);
        let mut random = chance(7);
        let mut hits = vec![0; backends.len()];
        for _ in 0..rounds {
            let hash = Some(random());
            let wish = Wish { hash, avoid: &[] };
            hits[balancer.pick(backends, wish, &mut random).unwrap()] += 1;
        }
        hits
    }

    const ALL: [Balance; 5] = [
        Balance::LeastRequest,
        Balance::RoundRobin,
        Balance::Random,
        Balance::RingHash { minimum_size: 1024 },
        Balance::Maglev { table_size: 65537 },
    ];

    #[test]
    fn every_policy_honours_weights() {
        for policy in ALL {
            let hits = counts(policy, &fakes(&[1, 3]), 40_000);
            let share = hits[0] as f64 / 40_000.0;
            assert!((share - 0.25).abs() < 0.04, "{policy:?}: {hits:?}");
        }
    }

    #[test]
    fn every_policy_spreads_evenly_and_skips_the_unavailable() {
        for policy in ALL {
            let mut backends = fakes(&[1, 1, 1, 1]);
            backends[2].up = false;
            let hits = counts(policy, &backends, 30_000);
            assert_eq!(hits[2], 0, "{policy:?}");
            assert!(hits.iter().filter(|n| **n > 4_000).count() == 3, "{policy:?}: {hits:?}");
        }
    }

    #[test]
    fn nothing_available_picks_nothing() {
        for policy in ALL {
            let mut backends = fakes(&[1, 2]);
            backends.iter_mut().for_each(|b| b.up = false);
            let balancer = Balancer::new(policy, 0.0, &backends);
            assert_eq!(balancer.pick(&backends, Wish::default(), &mut chance(1)), None);
            let none: [Fake; 0] = [];
            let balancer = Balancer::new(policy, 0.0, &none);
            assert_eq!(balancer.pick(&none, Wish::default(), &mut chance(1)), None);
        }
    }

    #[test]
    fn least_request_prefers_the_less_loaded() {
        let mut backends = fakes(&[1, 1]);
        backends[0].active = 50;
        let hits = counts(Balance::LeastRequest, &backends, 10_000);
        assert!(hits[1] > 7_000, "{hits:?}");
    }

    #[test]
    fn consistent_hashing_is_stable_when_an_endpoint_leaves() {
        for policy in
            [Balance::RingHash { minimum_size: 4096 }, Balance::Maglev { table_size: 65537 }]
        {
            let four = fakes(&[1, 1, 1, 1]);
            let three = four[..3].to_vec();
            let before = Balancer::new(policy, 0.0, &four);
            let after = Balancer::new(policy, 0.0, &three);
            let mut moved = 0;
            for key in 0..2_000_u64 {
                let wish = Wish { hash: Some(key_hash(&key.to_string())), avoid: &[] };
                let old = before.pick(&four, wish, &mut chance(1)).unwrap();
                let new = after.pick(&three, wish, &mut chance(2)).unwrap();
                moved += usize::from(old != 3 && old != new);
            }
            assert!(moved < 400, "{policy:?}: {moved}");
        }
    }

    #[test]
    fn avoided_endpoints_are_not_picked_while_others_are_there() {
        let backends = fakes(&[1, 1]);
        let balancer = Balancer::new(Balance::LeastRequest, 0.0, &backends);
        for seed in 0..200 {
            let wish = Wish { hash: None, avoid: &[0] };
            assert_eq!(balancer.pick(&backends, wish, &mut chance(seed)), Some(1));
        }
        let only = fakes(&[1]);
        let balancer = Balancer::new(Balance::LeastRequest, 0.0, &only);
        let wish = Wish { hash: None, avoid: &[0] };
        assert_eq!(balancer.pick(&only, wish, &mut chance(1)), Some(0), "better than nothing");
    }

    #[test]
    fn priorities_spill_over() {
        assert_eq!(priority_loads(&[(4, 4), (4, 4)]), [100, 0]);
        assert_eq!(priority_loads(&[(3, 4), (4, 4)]), [100, 0]);
        assert_eq!(priority_loads(&[(2, 4), (4, 4)]), [70, 30]);
        assert_eq!(priority_loads(&[(0, 4), (4, 4)]), [0, 100]);
        assert_eq!(priority_loads(&[(0, 4), (0, 4)]), [0, 0]);
    }

    #[test]
    fn the_second_priority_takes_over() {
        let mut backends = fakes(&[1, 1]);
        backends[1].priority = 1;
        assert_eq!(counts(Balance::RoundRobin, &backends, 100), [100, 0]);
        backends[0].up = false;
        assert_eq!(counts(Balance::RoundRobin, &backends, 100), [0, 100]);
    }

    #[test]
    fn panic_ignores_health() {
        let mut backends = fakes(&[1, 1, 1, 1]);
        backends[1..].iter_mut().for_each(|b| b.up = false);
        let balancer = Balancer::new(Balance::Random, 50.0, &backends);
        let mut random = chance(3);
        let picked: std::collections::HashSet<_> = (0..100)
            .filter_map(|_| balancer.pick(&backends, Wish::default(), &mut random))
            .collect();
        assert_eq!(picked.len(), 4);
    }
}
