//! What a Deployment wants: how many pods to make, and which to end.
//!
//! Pure. Pods of a new template replace those of the old one as they become ready; fewer wanted
//! pods end the least useful ones first.

/// A pod of a Deployment that is not ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Name of the pod.
    pub name: String,
    /// Hash of the template it was made of.
    pub hash: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Counts up with each pod that is made.
    pub age: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// How many pods of the present template to make.
    pub create: usize,
    /// Names of the pods to end.
    pub remove: Vec<String>,
}

/// The next steps towards `wanted` pods of the template with `hash`.
#[must_use]
pub fn plan(wanted: usize, hash: &str, replicas: &[Replica]) -> Plan {
    let (mut new, mut old): (Vec<&Replica>, Vec<&Replica>) =
        replicas.iter().partition(|replica| replica.hash == hash);
    least_useful_first(&mut new);
    least_useful_first(&mut old);
    let surplus = new.len().saturating_sub(wanted);
    let kept = new.get(surplus..).unwrap_or_default();
    let ready = kept.iter().filter(|replica| replica.ready).count();
    // An old pod stays for each new one that is not ready yet.
    let bridged = wanted.saturating_sub(ready);
    let outdated = old.len().saturating_sub(bridged);
    let removed = new.iter().take(surplus).chain(old.iter().take(outdated));
    Plan {
        create: wanted.saturating_sub(new.len()),
        remove: removed.map(|replica| replica.name.clone()).collect(),
    }
}

/// Whether everything is as wanted.
#[must_use]
pub fn is_settled(wanted: usize, hash: &str, replicas: &[Replica]) -> bool {
    replicas.len() == wanted && replicas.iter().all(|replica| replica.ready && replica.hash == hash)
}

fn least_useful_first(replicas: &mut [&Replica]) {
    replicas.sort_by_key(|replica| (replica.ready, std::cmp::Reverse(replica.age)));
}

#[cfg(test)]
mod tests {
    use super::{Plan, Replica, is_settled, plan};
    use proptest::prelude::{any, proptest};

    fn replica(name: &str, hash: &str, ready: bool) -> Replica {
        let age = u64::from(name.bytes().next().unwrap_or_default());
        Replica { name: name.to_owned(), hash: hash.to_owned(), ready, age }
    }

    #[test]
    fn missing_pods_are_made_and_surplus_ones_end() {
        assert_eq!(plan(2, "h", &[]), Plan { create: 2, remove: Vec::new() });
        let three = [replica("a", "h", true), replica("b", "h", false), replica("c", "h", true)];
        assert_eq!(plan(2, "h", &three), Plan { create: 0, remove: vec!["b".to_owned()] });
        assert_eq!(plan(1, "h", &three).remove, ["b", "c"]);
        assert_eq!(plan(0, "h", &three).remove, ["b", "c", "a"]);
    }

    #[test]
    fn the_old_stay_until_the_new_are_ready() {
        let old = [replica("a", "old", true), replica("b", "old", true)];
        assert_eq!(plan(2, "new", &old), Plan { create: 2, remove: Vec::new() });
        let half = [&old[..], &[replica("c", "new", true), replica("d", "new", false)]].concat();
        assert_eq!(plan(2, "new", &half), Plan { create: 0, remove: vec!["b".to_owned()] });
    }

    /// Whatever becomes ready in whatever order, a change of template ends with the wanted pods,
    /// and never has fewer ready ones on the way than it began with.
    fn roll(wanted: usize, old: usize, order: &[bool]) {
        let mut next: u64 = 0;
        let mut made = |hash: &str, ready: bool| {
            next += 1;
            Replica { name: format!("p{next}"), hash: hash.to_owned(), ready, age: next }
        };
        let mut pods: Vec<Replica> = (0..old).map(|_| made("old", true)).collect();
        let mut coins = order.iter().copied().cycle();
        for _ in 0..10_000 {
            if is_settled(wanted, "new", &pods) {
                return;
            }
            let todo = plan(wanted, "new", &pods);
            assert!(todo.remove.len() <= pods.len());
            pods.retain(|pod| !todo.remove.contains(&pod.name));
            pods.extend((0..todo.create).map(|_| made("new", false)));
            let ready = pods.iter().filter(|pod| pod.ready).count();
            assert!(ready >= wanted.min(old), "{ready} of {wanted} are ready: {pods:?}");
            let waiting = pods.iter().position(|pod| !pod.ready);
            if let Some(index) = waiting.filter(|_| coins.next() == Some(true)) {
                pods[index].ready = true;
            }
        }
        panic!("never settled: {pods:?}");
    }

    proptest! {
        #[test]
        fn every_change_of_template_ends(
            wanted in 0_usize..6,
            old in 0_usize..6,
            mut order in proptest::collection::vec(any::<bool>(), 0..20),
        ) {
            order.push(true);
            roll(wanted, old, &order);
        }
    }
}
