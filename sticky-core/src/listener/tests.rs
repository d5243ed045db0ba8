use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::*;

const BACKLOG: u32 = 16;

fn hash(workers: u16) -> KernelHash {
    KernelHash::of_all(42, workers)
}

fn address(text: &str) -> ListenAddress {
    text.parse().unwrap()
}

/// Takes one address with a listener for each of `workers` slots.
fn take_one(text: &str, workers: u16) -> Result<ListenerSet, ListenError> {
    Ok(take(&[address(text)], Sharing::PerSlot(&hash(workers), workers), BACKLOG)?.remove(0))
}

fn port(set: &ListenerSet) -> u16 {
    set.address().port().unwrap()
}

/// An old-fashioned competitor for a port.
fn rival(text: &str, shares: bool) -> (Socket, u16) {
    let address: SocketAddr = text.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(shares).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(1).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

fn connect_from(client: &str, server: SocketAddr, patience: Duration) -> io::Result<Socket> {
    let client: IpAddr = client.parse().unwrap();
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&server.into(), patience)?;
    Ok(socket)
}

/// The slot whose queue has the next connection.
fn accepting_slot(set: &ListenerSet) -> u16 {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Some(slot) = set.kind().sockets().iter().position(|socket| socket.accept().is_ok()) {
            return slot as u16;
        }
        std::thread::yield_now();
    }
    panic!("no connection arrived");
}

fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn each_client_reaches_the_listener_the_twin_names() {
    let set = take_one("127.0.0.1:0", 4).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port(&set)));
    for n in 1..=200u8 {
        let client = format!("127.{n}.0.{}", 255 - n);
        let expected = hash(4).owner(client.parse().unwrap()).unwrap().get();
        for _ in 0..20 {
            let _connection = connect_from(&client, server, Duration::from_secs(5)).unwrap();
            assert_eq!(accepting_slot(&set), expected, "{client}");
        }
    }
}

#[test]
fn ipv4_on_a_dual_stack_listener_is_ipv4() {
    let set = take_one(":0", 4).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port(&set)));
    for n in 1..=20 {
        let client = format!("127.0.{n}.1");
        let _connection = connect_from(&client, server, Duration::from_secs(5)).unwrap();
        assert_eq!(accepting_slot(&set), hash(4).owner(client.parse().unwrap()).unwrap().get());
    }
    if has_ipv6() {
        let server = SocketAddr::from((Ipv6Addr::LOCALHOST, port(&set)));
        let _connection = connect_from("::1", server, Duration::from_secs(5)).unwrap();
        assert_eq!(accepting_slot(&set), hash(4).owner("::1".parse().unwrap()).unwrap().get());
    }
}

#[test]
fn an_evicted_slot_gets_no_new_connections_until_it_is_back() {
    let set = take_one("127.0.0.1:0", 2).unwrap();
    let client = (1..255).map(|n| format!("127.0.0.{n}"));
    let client = client.into_iter().find(|ip| hash(2).owner(ip.parse().unwrap()) == Some(WorkerId::new(1))).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port(&set)));
    for (slots, expected) in [(vec![0], 0), (vec![0, 1], 1)] {
        let slots: Vec<_> = slots.into_iter().map(WorkerId::new).collect();
        set.place(&KernelHash::new(42, &slots)).unwrap();
        let _connection = connect_from(&client, server, Duration::from_secs(5)).unwrap();
        assert_eq!(accepting_slot(&set), expected);
    }
}

#[test]
fn a_rivals_port_is_an_error_even_if_it_shares() {
    for shares in [false, true] {
        let (_rival, port) = rival("127.0.0.1:0", shares);
        for workers in [1, 4] {
            let error = take_one(&format!("127.0.0.1:{port}"), workers).unwrap_err();
            assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
            let expected =
                format!("cannot listen on 127.0.0.1:{port}: another program is already listening on port {port}");
            assert_eq!(error.to_string(), expected);
        }
        assert!(matches!(take_one(&format!(":{port}"), 4), Err(ListenError::InUse { .. })));
    }
}

#[test]
fn our_port_is_an_error_for_the_next() {
    let set = take_one("127.0.0.1:0", 4).unwrap();
    for workers in [1, 4] {
        let second = take_one(&format!("127.0.0.1:{}", port(&set)), workers);
        assert!(matches!(second, Err(ListenError::InUse { .. })));
    }
    let shared = take(&[address("127.0.0.1:0")], Sharing::Shared, BACKLOG).unwrap();
    let again = take(&[address(&shared[0].address().to_string())], Sharing::Shared, BACKLOG);
    assert!(matches!(again, Err(ListenError::InUse { .. })));
}

#[test]
fn a_restart_does_not_wait_for_time_wait() {
    let set = take_one("127.0.0.1:0", 2).unwrap();
    let port = port(&set);
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let server = loop {
        assert!(Instant::now() < deadline);
        if let Some((server, _)) = set.kind().sockets().iter().find_map(|socket| socket.accept().ok()) {
            break server;
        }
    };
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, set));
    take_one(&format!("127.0.0.1:{port}"), 2).unwrap();
}

#[test]
fn the_system_chooses_one_port_for_all() {
    let set = take_one("127.0.0.1:0", 3).unwrap();
    assert_ne!(port(&set), 0);
    for socket in set.kind().sockets() {
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(LocalAddress::Tcp(address), *set.address());
        assert!(socket.nonblocking().unwrap());
        assert!(rustix::io::fcntl_getfd(socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
    assert_eq!(set.kind().sockets().len(), 3);
}

#[test]
fn a_host_name_means_all_its_addresses() {
    let sets = take(&[address("localhost:0")], Sharing::PerSlot(&hash(2), 2), BACKLOG).unwrap();
    assert!(sets.iter().all(|set| port(set) == port(&sets[0])));
    assert!(TcpStream::connect(("localhost", port(&sets[0]))).is_ok());
    assert!(TcpStream::connect(("127.0.0.1", port(&sets[0]))).is_ok());
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let error = take_one("no-such-host.invalid:80", 1).unwrap_err().to_string();
    assert_eq!(error, "cannot listen on no-such-host.invalid: the name cannot be resolved");
}

#[test]
fn an_address_of_another_machine_is_an_error() {
    let error = take_one("192.0.2.1:0", 2).unwrap_err();
    assert!(error.is_unavailable());
    assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:0: this machine has no such address");
}

#[test]
fn both_wildcards_can_be_listed() {
    if !has_ipv6() {
        return;
    }
    for texts in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"]] {
        // A port that was free a moment ago may be another test's by now; then another one is tried.
        let taken = (0..100).find_map(|_| {
            let (free, port) = rival("127.0.0.1:0", false);
            drop(free);
            let both = texts.map(|host| address(&format!("{host}:{port}")));
            take(&both, Sharing::PerSlot(&hash(2), 2), BACKLOG).ok()
        });
        assert_eq!(taken.unwrap().len(), 2);
    }
}

#[test]
fn one_worker_needs_no_group() {
    let set = take_one("127.0.0.1:0", 1).unwrap();
    assert!(!set.kind().sockets()[0].reuse_port().unwrap());
    set.place(&hash(1)).unwrap();
    let _connection = TcpStream::connect(("127.0.0.1", port(&set))).unwrap();
    assert_eq!(accepting_slot(&set), 0);
}

#[test]
fn a_shared_listener_is_every_slots() {
    let sets = take(&[address("127.0.0.1:0")], Sharing::Shared, BACKLOG).unwrap();
    assert!(matches!(sets[0].kind(), ListenerKind::Shared(_)));
    let _connection = TcpStream::connect(("127.0.0.1", port(&sets[0]))).unwrap();
    assert!(std::ptr::eq(sets[0].for_slot(WorkerId::new(3)), sets[0].for_slot(WorkerId::new(0))));
    assert_eq!(accepting_slot(&sets[0]), 0);
}

#[test]
fn a_closed_gate_drops_everything_until_it_opens() {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = bind::single(address, &BindOptions { backlog: BACKLOG, ipv6_only: false }).unwrap();
    let server = bind::local_address(&listener, address).unwrap();
    gate::close(&listener).unwrap();
    let silent = connect_from("127.0.0.1", server, Duration::from_millis(50)).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::TimedOut);
    gate::open(&listener).unwrap();
    connect_from("127.0.0.1", server, Duration::from_secs(5)).unwrap();
}

#[test]
fn a_quiesced_set_keeps_what_it_has_and_lets_nothing_begin() {
    let set = take_one("[::1]:0", 2).or_else(|_| take_one("127.0.0.1:0", 2)).unwrap();
    quiesce_and_check(&set);
    quiesce_and_check(&take_one("127.0.0.1:0", 1).unwrap());
    // An IPv4 packet on a dual-stack listener.
    quiesce_and_check(&take_one(":0", 2).unwrap());
}

fn quiesce_and_check(set: &ListenerSet) {
    let LocalAddress::Tcp(mut server) = *set.address() else { panic!("a TCP address") };
    if server.ip().is_unspecified() {
        server.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let mut queued = TcpStream::connect(server).unwrap();
    queued.write_all(b"before").unwrap();
    set.kind().sockets().iter().try_for_each(quiesce).unwrap();
    queued.write_all(b" and after").unwrap();
    let refused = TcpStream::connect_timeout(&server, Duration::from_millis(50)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut);

    let (accepted, _) = set.kind().sockets().iter().find_map(|socket| socket.accept().ok()).unwrap();
    accepted.set_nonblocking(false).unwrap();
    let mut received = [0; 16];
    TcpStream::from(accepted).read_exact(&mut received).unwrap();
    assert_eq!(&received, b"before and after");
}

#[test]
fn an_admitted_connection_is_heard() {
    for (listen, connect) in [("127.0.0.1:0", "127.0.0.1"), (":0", "127.0.0.1"), (":0", "::1")] {
        if connect == "::1" && !has_ipv6() {
            continue;
        }
        let set = take_one(listen, 1).unwrap();
        let mut client = TcpStream::connect((connect, port(&set))).unwrap();
        let (accepted, _) = set.kind().sockets()[0].accept().unwrap();
        accepted.set_nonblocking(false).unwrap();
        accepted.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // What it would have inherited, had its handshake ended later.
        gate::close(&accepted).unwrap();
        client.write_all(b"unheard").unwrap();
        let mut accepted = TcpStream::from(accepted);
        assert_eq!(accepted.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        admit(&accepted).unwrap();
        accepted.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut received = [0; 7];
        accepted.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"unheard");
    }
}

/// A directory of this test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sticky-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> (PathBuf, ListenAddress) {
        let path = self.0.join("s");
        (path.clone(), ListenAddress::Unix(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn take_path(address: &ListenAddress) -> Result<ListenerSet, ListenError> {
    Ok(take(std::slice::from_ref(address), Sharing::PerSlot(&hash(4), 4), BACKLOG)?.remove(0))
}

#[test]
fn a_unix_path_is_shared_and_goes_with_its_set() {
    let directory = Directory::new("shared");
    let (path, address) = directory.socket();
    let set = take_path(&address).unwrap();
    assert!(matches!(set.kind(), ListenerKind::Shared(_)));
    assert_eq!(set.address().to_string(), format!("unix:{}", path.display()));
    UnixStream::connect(&path).unwrap();
    assert_eq!(accepting_slot(&set), 0);
    drop(set);
    assert!(!path.exists());
}

#[test]
fn a_quiesced_unix_path_is_gone() {
    let directory = Directory::new("quiesced");
    let (path, address) = directory.socket();
    let set = take_path(&address).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    set.unpublish();
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(accepting_slot(&set), 0);
}

#[test]
fn the_file_of_an_ended_program_is_replaced() {
    let directory = Directory::new("stale");
    let (path, address) = directory.socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let set = take_path(&address).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(set);
}

#[test]
fn a_live_rivals_file_stays() {
    let directory = Directory::new("live");
    let (path, address) = directory.socket();
    let rival = UnixListener::bind(&path).unwrap();
    let error = take_path(&address).unwrap_err();
    assert!(matches!(error, ListenError::PathInUse { .. }), "{error:?}");
    assert!(path.exists());
    rival.accept().unwrap();
}

#[test]
fn what_is_not_a_socket_stays() {
    let directory = Directory::new("file");
    let (path, address) = directory.socket();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(take_path(&address), Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_file_that_was_replaced_is_not_ours_to_remove() {
    let directory = Directory::new("replaced");
    let (path, address) = directory.socket();
    let set = take_path(&address).unwrap();
    // The old file keeps its inode until our set is gone, so the new one has another.
    std::fs::rename(&path, directory.0.join("old")).unwrap();
    let _theirs = UnixListener::bind(&path).unwrap();
    drop(set);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_missing_directory_is_named() {
    let error = take_path(&ListenAddress::Unix("/nonexistent/s".into())).unwrap_err().to_string();
    assert_eq!(error, "cannot listen on unix:/nonexistent/s: binding failed");
}
