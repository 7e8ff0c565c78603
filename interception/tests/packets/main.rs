//! Real packets through real rules, each test in a network namespace of its own, for each carrier of
//! rules.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

mod carrier;
mod directions;
mod gaps;
mod lists;
mod pods;
mod rules;
mod world;

use carrier::On;
use lateen_interception::settings::IptablesKind;
use lateen_testkit::netns::inside;

/// Each of the tests, inside a namespace, with the rules carried by this.
macro_rules! carried_by {
    ($module:ident, $on:expr, [$($place:ident::$test:ident),* $(,)?]) => {
        mod $module {
            use super::{directions, gaps, inside, pods, rules};
            $(
                #[test]
                fn $test() {
                    if inside(concat!(stringify!($module), "::", stringify!($test))) && $on.is_here() {
                        $place::$test($on);
                    }
                }
            )*
        }
    };
}

macro_rules! on_every_carrier {
    ($tests:tt) => {
        carried_by!(nftables, crate::On::Nftables, $tests);
        carried_by!(iptables_nft, crate::On::Iptables(crate::IptablesKind::Nft), $tests);
        carried_by!(iptables_legacy, crate::On::Iptables(crate::IptablesKind::Legacy), $tests);
    };
}

on_every_carrier!([
    directions::outbound_goes_to_the_proxy_unless_it_is_its_own,
    directions::only_listed_ranges_are_captured,
    directions::inbound_goes_to_the_proxy_except_for_excluded_ports,
    directions::questions_for_names_go_to_the_proxy,
    rules::rules_are_replaced_verified_and_removed,
    rules::two_at_once_leave_the_rules_of_one,
    gaps::nothing_gets_past_while_rules_and_mode_change,
    pods::a_pod_with_only_ipv6_is_captured,
    pods::a_pod_whose_ipv6_is_switched_off_is_captured,
    pods::every_interface_is_captured_unless_it_is_excluded,
]);
