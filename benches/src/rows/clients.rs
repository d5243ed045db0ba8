//! What clients do to a side, and the clients that do it.

use std::rc::Rc;
use std::time::Duration;

use crate::load::{Asks, Client, Group, Head, Identity, Lifetime, Order, Request, upgrade};

/// What clients do to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing: start and stop.
    None,
    /// Keep-alive connections, each asking again as soon as it is answered.
    Requests,
    /// A new connection for each request.
    Connections,
    /// Half the connections from one address whose requests block their thread for 20 ms; the others ask every 50 ms.
    Blocking,
    /// Keep-alive connections whose requests carry keys.
    Keyed(Keys, Head),
    /// A new connection for each request, which carries its client's key.
    KeyedConnections(Head),
    /// WebSockets, each sending its next message as soon as the last one is back.
    Messages,
    /// Half the connections, each with its own key and 100 requests a second.
    Paced,
    /// The same, and clients who mean ill.
    Hostile,
    /// This many WebSockets that say nothing; fewer where the limit on descriptors is lower.
    Idle(usize),
    /// The same with connections that have asked once, and may ask again.
    IdleKeepAlive(usize),
}

/// The keys of one connection's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Always the same one.
    Fixed,
    /// The same, but no request is the same as the last.
    FixedVaried,
    /// Two keys of different workers in turn.
    Alternating,
    /// Any of this many for each request, each as likely; the same ones on all connections.
    Random(usize),
}

impl Load {
    /// Connections at a time.
    pub const CLIENTS: usize = 64;

    /// The clients for requests to `host`, from identities sorted by worker.
    pub fn clients(self, identities: &[Vec<Identity>], host: &str) -> Vec<Client> {
        let everyone = || identities.iter().flatten();
        match self {
            Self::None | Self::Idle(_) | Self::IdleKeepAlive(_) => Vec::new(),
            Self::Requests => everyone().map(|one| client(one, request(one, Head::Plain, "/", host))).collect(),
            Self::Connections => one_request_each(everyone(), Head::Plain, host),
            Self::Blocking => blocking(identities, host),
            Self::Keyed(Keys::Fixed, head) => {
                everyone().map(|one| client(one, request(one, head, "/", host))).collect()
            }
            Self::Keyed(Keys::FixedVaried, head) => everyone().map(|one| varied(one, head, host)).collect(),
            Self::Keyed(Keys::Alternating, head) => alternating(identities, head, host),
            Self::Keyed(Keys::Random(_), head) => random(identities, head, host),
            Self::KeyedConnections(head) => one_request_each(everyone(), head, host),
            Self::Messages => everyone().map(|one| messages(one, host)).collect(),
            Self::Paced => paced(identities, host).collect(),
            Self::Hostile => paced(identities, host).chain(hostile(identities, host)).collect(),
        }
    }

    /// How many connections that say nothing, if this is such a load, and what each has said before, as many for each worker.
    pub fn idle(self, identities: &[Vec<Identity>], host: &str) -> Option<(usize, Rc<[Request]>)> {
        let everyone = || identities.iter().flatten();
        match self {
            Self::Idle(count) => Some((count, everyone().map(|one| upgrade_request(one, host)).collect())),
            Self::IdleKeepAlive(count) => {
                Some((count, everyone().map(|one| request(one, self.head(), "/", host)).collect()))
            }
            _ => None,
        }
    }

    /// The head by which programs are asked who answers an identity.
    pub fn head(self) -> Head {
        match self {
            Self::None | Self::Requests | Self::Connections | Self::Blocking => Head::Plain,
            Self::Keyed(_, head) | Self::KeyedConnections(head) => head,
            Self::Messages | Self::Paced | Self::Hostile | Self::Idle(_) | Self::IdleKeepAlive(_) => Head::Bare,
        }
    }

    /// Identities wanted of each worker.
    pub fn identities_per_worker(self, workers: u16) -> usize {
        let all = match self {
            Self::None => 0,
            Self::Blocking | Self::Paced | Self::Hostile => Self::CLIENTS / 2,
            Self::Keyed(Keys::Random(keys), _) => keys,
            _ => Self::CLIENTS,
        };
        all / usize::from(workers)
    }
}

fn request(identity: &Identity, head: Head, path: &str, host: &str) -> Request {
    Request { text: head.get(path, host, &identity.key), worker: identity.worker }
}

fn upgrade_request(identity: &Identity, host: &str) -> Request {
    Request { text: upgrade(host, &identity.key), worker: identity.worker }
}

/// A client that asks one thing again and again, as soon as it is answered.
fn client(identity: &Identity, request: Request) -> Client {
    Client {
        source: identity.source,
        asks: Asks::Requests(Rc::new([request]), Order::InTurn),
        connection: Lifetime::KeepAlive,
        interval: None,
        group: Group::Ordinary,
    }
}

/// Asks as [`client`] does, each time with another query.
fn varied(identity: &Identity, head: Head, host: &str) -> Client {
    let requests = (0..8).map(|number| request(identity, head, &format!("/?n={number}"), host)).collect();
    Client { asks: Asks::Requests(requests, Order::InTurn), ..client(identity, request(identity, head, "/", host)) }
}

fn one_request_each<'a>(everyone: impl Iterator<Item = &'a Identity>, head: Head, host: &str) -> Vec<Client> {
    let client = |one| Client { connection: Lifetime::OneRequest, ..client(one, request(one, head, "/", host)) };
    everyone.map(client).collect()
}

fn messages(identity: &Identity, host: &str) -> Client {
    let upgrade = upgrade_request(identity, host);
    Client { asks: Asks::Messages(upgrade.clone()), ..client(identity, upgrade) }
}

/// Each client's second key is one of the next worker's: so every request of its connection belongs elsewhere than the
/// last. All workers have as many connections at any time.
fn alternating(identities: &[Vec<Identity>], head: Head, host: &str) -> Vec<Client> {
    let next_workers = identities.iter().cycle().skip(1);
    let pairs = identities.iter().zip(next_workers).flat_map(|(ones, others)| ones.iter().zip(others));
    let client = |(one, other)| {
        let requests = [one, other].map(|identity| request(identity, head, "/", host));
        Client { asks: Asks::Requests(Rc::new(requests), Order::InTurn), ..client(one, request(one, head, "/", host)) }
    };
    pairs.map(client).collect()
}

/// The addresses of the identities go round, since there are not as many as clients.
fn random(identities: &[Vec<Identity>], head: Head, host: &str) -> Vec<Client> {
    let requests: Rc<[Request]> = identities.iter().flatten().map(|one| request(one, head, "/", host)).collect();
    let sources = identities.iter().flatten().cycle();
    let client = |(seed, one)| Client {
        asks: Asks::Requests(Rc::clone(&requests), Order::Random(seed)),
        ..client(one, request(one, head, "/", host))
    };
    (0..Load::CLIENTS as u64).zip(sources).map(client).collect()
}

/// The loud client shares its address with nobody but is placed with its neighbours: it takes the first's.
fn blocking(identities: &[Vec<Identity>], host: &str) -> Vec<Client> {
    let first = &identities[0][0];
    let loud = Client { group: Group::Loud, ..client(first, request(first, Head::Plain, "/block/20", host)) };
    let quiet = identities.iter().enumerate().flat_map(|(worker, identities)| {
        let group = if worker == 0 { Group::Neighbour } else { Group::Ordinary };
        let interval = Some(Duration::from_millis(50));
        identities.iter().map(move |one| {
            let client = client(one, request(one, Head::Plain, "/", host));
            Client { group, interval, ..client }
        })
    });
    std::iter::repeat_n(loud, Load::CLIENTS / 2).chain(quiet).collect()
}

fn paced<'a>(identities: &'a [Vec<Identity>], host: &'a str) -> impl Iterator<Item = Client> + 'a {
    let interval = Some(Duration::from_millis(10));
    identities.iter().flatten().map(move |one| Client { interval, ..client(one, request(one, Head::Bare, "/", host)) })
}

/// One whose key changes with every request, one with heads as long as they may be, eight that send theirs byte by byte.
fn hostile(identities: &[Vec<Identity>], host: &str) -> impl Iterator<Item = Client> + use<> {
    let loud = |client| Client { group: Group::Loud, ..client };
    let first = &identities[0][0];
    let mut long = request(first, Head::Bare, "/", host);
    long.text.truncate(long.text.len() - 2);
    long.text += &format!("x-long: {}\r\n\r\n", "x".repeat(30_000));
    let slow = identities.iter().flatten().take(8).map(|one| {
        let asks = Asks::Slowly(request(one, Head::Bare, "/", host), Duration::from_millis(2));
        Client { asks, ..client(one, request(one, Head::Bare, "/", host)) }
    });
    let slow: Vec<Client> = slow.collect();
    let restless = alternating(identities, Head::Bare, host).into_iter().take(1);
    restless.chain([client(first, long)]).chain(slow).map(loud)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// As many as the load wants; a key says whose it is.
    fn identities(load: Load, workers: u16) -> Vec<Vec<Identity>> {
        let of_worker = |worker: u16| {
            let one = |number| Identity {
                source: Ipv4Addr::LOCALHOST,
                key: format!("{worker}:{number}"),
                worker: Some(worker.into()),
            };
            (0..load.identities_per_worker(workers)).map(one).collect()
        };
        (0..workers).map(of_worker).collect()
    }

    fn clients(load: Load, workers: u16) -> Vec<Client> {
        load.clients(&identities(load, workers), "h")
    }

    /// The workers that a client's requests go to.
    fn workers(client: &Client) -> Vec<usize> {
        match &client.asks {
            Asks::Requests(requests, _) => requests.iter().filter_map(|request| request.worker).collect(),
            Asks::Slowly(request, _) | Asks::Messages(request) => request.worker.into_iter().collect(),
        }
    }

    #[test]
    fn every_load_gives_each_worker_the_same_number_of_clients() {
        let fixed = [Load::Requests, Load::Connections, Load::Keyed(Keys::Fixed, Head::Bare), Load::Messages];
        for load in fixed {
            let clients = clients(load, 4);
            let of_worker = |worker| clients.iter().filter(|client| workers(client) == [worker]).count();
            assert_eq!([0, 1, 2, 3].map(of_worker), [16; 4], "{load:?}");
        }
    }

    #[test]
    fn an_alternating_client_never_asks_one_worker_twice() {
        let clients = clients(Load::Keyed(Keys::Alternating, Head::Bare), 2);
        let of_pair = |pair: [usize; 2]| clients.iter().filter(|client| workers(client) == pair).count();
        assert_eq!([of_pair([0, 1]), of_pair([1, 0])], [32, 32]);
    }

    #[test]
    fn random_clients_share_the_keys_but_not_their_order() {
        let clients = clients(Load::Keyed(Keys::Random(50), Head::Bare), 2);
        assert_eq!(clients.len(), Load::CLIENTS);
        let mut orders = Vec::new();
        for client in &clients {
            assert_eq!(workers(client).iter().filter(|&&worker| worker == 0).count(), 25);
            let Asks::Requests(requests, order) = &client.asks else { panic!("{:?}", client.asks) };
            assert_eq!(requests.len(), 50);
            assert!(!orders.contains(order), "{order:?} twice");
            orders.push(*order);
        }
    }

    #[test]
    fn one_address_makes_half_of_the_blocking_load() {
        let clients = clients(Load::Blocking, 4);
        let count = |group| clients.iter().filter(|client| client.group == group).count();
        assert_eq!([Group::Loud, Group::Neighbour, Group::Ordinary].map(count), [32, 8, 24]);
    }

    #[test]
    fn a_websocket_is_asked_for_with_its_own_key() {
        let identities = identities(Load::Idle(10_000), 2);
        let (count, upgrades) = Load::Idle(10_000).idle(&identities, "h").unwrap();
        assert_eq!((count, upgrades.len()), (10_000, Load::CLIENTS));
        assert!(upgrades[63].text.contains("\r\nx-key: 1:31\r\n"), "{}", upgrades[63].text);
        assert_eq!(upgrades[63].worker, Some(1));
    }
}
