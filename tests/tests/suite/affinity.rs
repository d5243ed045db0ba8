//! Each client address on one worker: IPv4, IPv6 networks, dual stack, and when a slot is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::namespace::LOOPBACK_SCOPE;
use sticky_tests::process::eventually;
use sticky_tests::{Client, TestCluster};

use crate::bed::{Bed, Row};

const SEED: &str = "7";

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("address_keeps_its_worker", address_keeps_its_worker),
        Row::new("ipv6_network_keeps_its_worker", ipv6_network_keeps_its_worker).in_own_network(),
        Row::new("scoped_ipv6_is_served", scoped_ipv6_is_served).in_own_network(),
        Row::new("ipv4_on_dual_stack_is_placed_as_ipv4", ipv4_on_dual_stack_is_placed_as_ipv4),
        Row::new("lost_slot_moves_only_its_addresses", lost_slot_moves_only_its_addresses),
        Row::new("same_seed_same_places", same_seed_same_places),
    ]
}

fn address_keeps_its_worker(bed: &Bed) {
    let cluster = bed.launch().workers(4).up();
    let places = places(&cluster.client(), Client::loopback_addresses(200).map(|address| vec![address.into(); 20]));
    assert_eq!(slots(&places), BTreeSet::from([0, 1, 2, 3]), "every slot has clients");
    stop_in_agreement(&cluster);
}

fn ipv6_network_keeps_its_worker(bed: &Bed) {
    let cluster = bed.launch().workers(4).listen("[::]:0").up();
    let client = Client::new(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), cluster.address().port()));
    // 20 hosts in each of 200 networks: the network decides, not the host.
    let hosts = |network| {
        (0..20).map(move |host: u16| Ipv6Addr::new(0xfd00, 0, network >> 8, network, host * 7, 0, 0, host + 1))
    };
    let networks = (1..=200).map(|network: u16| hosts(network).map(IpAddr::from).collect());
    let places = places(&client, networks);
    assert_eq!(slots(&places), BTreeSet::from([0, 1, 2, 3]), "every slot has networks");
    stop_in_agreement(&cluster);
}

/// A peer whose address carries a scope killed the primary of sticky-session.
fn scoped_ipv6_is_served(bed: &Bed) {
    let cluster = bed.launch().listen("[::]:0").up();
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let target = SocketAddrV6::new(link_local, cluster.address().port(), 0, LOOPBACK_SCOPE);
    let client = Client::new(target.into());
    // The kernel adds the route to a new address in its own time.
    eventually("the address is reachable", PATIENCE, || client.connect().is_ok());
    let answer = client.get("/whoami").expect("an answer");
    assert!(answer.text().starts_with("fe80::1"), "{}", answer.text());
    assert_eq!(client.get("/").expect("a second answer").worker(), answer.worker());
    stop_in_agreement(&cluster);
}

fn ipv4_on_dual_stack_is_placed_as_ipv4(bed: &Bed) {
    let launch = |listen| bed.launch().workers(4).listen(listen).env("STICKY_HASH_SEED", SEED).up();
    let (four, dual) = (launch("127.0.0.1:0"), launch("[::]:0"));
    let dual_client = Client::new(SocketAddr::new([127, 0, 0, 1].into(), dual.address().port()));
    assert_eq!(places(&four.client(), singles(200)), places(&dual_client, singles(200)));
    for address in Client::loopback_addresses(3) {
        let seen = dual_client.clone().from(address).get("/whoami").expect("an answer").text();
        assert_eq!(seen, address.to_string(), "the application sees an IPv4 address");
    }
    stop_in_agreement(&dual);
}

fn lost_slot_moves_only_its_addresses(bed: &Bed) {
    let places_of = |workers| {
        let cluster = bed.launch().workers(workers).env("STICKY_HASH_SEED", SEED).up();
        let places = places(&cluster.client(), singles(400));
        stop_in_agreement(&cluster);
        places
    };
    let (four, three) = (places_of(4), places_of(3));
    let moved: Vec<_> = four.iter().filter(|(key, slot)| three[*key] != **slot).collect();
    assert!(!moved.is_empty(), "slot 3 had clients");
    assert!(moved.iter().all(|(_, slot)| **slot == 3), "only clients of slot 3 move: {moved:?}");
    assert!(!three.values().any(|slot| *slot == 3));
}

fn same_seed_same_places(bed: &Bed) {
    let places_with = |seed| {
        let cluster = bed.launch().workers(4).env("STICKY_HASH_SEED", seed).up();
        places(&cluster.client(), singles(100))
    };
    let first = places_with(SEED);
    assert_eq!(first, places_with(SEED), "a restart with the same seed moves nobody");
    assert_ne!(first, places_with("8"), "the seed decides");
}

/// The slot of each key, by its first address; every connection of a key must reach the same one.
fn places(client: &Client, keys: impl Iterator<Item = Vec<IpAddr>>) -> BTreeMap<IpAddr, u16> {
    let slot_of = |address: IpAddr| {
        let answer = client.clone().from(address).get("/").unwrap_or_else(|error| panic!("from {address}: {error}"));
        assert_eq!(answer.text(), format!("worker: {}", answer.worker()));
        answer.worker()
    };
    let place = |addresses: Vec<IpAddr>| {
        let slots: BTreeSet<u16> = addresses.iter().copied().map(slot_of).collect();
        assert_eq!(slots.len(), 1, "connections from {} reached {slots:?}", addresses[0]);
        (addresses[0], slots.into_iter().next().expect("one slot"))
    };
    keys.map(place).collect()
}

fn singles(count: u32) -> impl Iterator<Item = Vec<IpAddr>> {
    Client::loopback_addresses(count).map(|address| vec![address.into()])
}

fn slots(places: &BTreeMap<IpAddr, u16>) -> BTreeSet<u16> {
    places.values().copied().collect()
}

/// Every worker compares the kernel's choice with its own on each accept and says when they differ.
fn stop_in_agreement(cluster: &TestCluster) {
    cluster.stop();
    assert_eq!(cluster.events().count("mismatch"), 0, "kernel and Rust disagree:\n{}", cluster.events());
}
