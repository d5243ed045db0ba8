//! Who has no business here: other users, and whatever is written into the sockets between the processes.
//!
//! Those sockets have no names, so that nobody can connect to them, and no other user can have their descriptors. Whoever is the same
//! user can: he could kill the processes just as well. What he writes there must all the same do no more harm than he means
//! to; the forms that garbage takes are the unit tests' and the fuzzers'.

use std::collections::BTreeSet;
use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use sticky_tests::admin::Admin;
use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, eventually};
use sticky_tests::{Client, Random, Request, TestCluster};

use crate::bed::{Bed, Dispatch, Framework, Row};
use crate::keys::{Key, by_header};

/// The user that clusters without privileges have, as Debian numbers it, and one that is nobody to them.
const OWNER: u32 = 65_534;
const STRANGER: u32 = 65_533;

pub(crate) fn rows() -> Vec<Row> {
    let with_core = |row: Row| row.only_with(Framework::Core);
    vec![
        with_core(Row::new("strangers_find_nothing_to_connect_to", strangers_find_nothing_to_connect_to)),
        with_core(
            Row::new("garbage_in_channels_kills_nobody", garbage_in_channels_kills_nobody).only(Dispatch::Handoff),
        ),
        with_core(Row::new("who_talks_nonsense_is_replaced", who_talks_nonsense_is_replaced)),
    ]
}

// === strangers ===

/// All that has a name is what was configured, and that is as private as it was meant to be.
fn strangers_find_nothing_to_connect_to(bed: &Bed) {
    let launch = bed.launch().unprivileged().with_admin().env("TESTBED_BUS_TOPIC", "early");
    let path = launch.folder().join("tmp/app.sock");
    let cluster = bed.on_paths(launch.listen(format!("127.0.0.1:0,unix:{}", path.display()))).up();
    let admin = Admin::of(&cluster);
    cluster.pids(2);
    eventually("the admin process answers", PATIENCE, || admin.try_status().is_ok());
    let family = cluster.family();
    assert_eq!(family.len(), 2 + cluster.workers().len() + cluster.proxies().len());
    let held: BTreeSet<u64> = family.iter().flat_map(|pid| sockets(*pid)).map(|(_, inode)| inode).collect();
    let unix = UnixSocket::all().into_iter().filter(|socket| held.contains(&socket.inode));
    let named: BTreeSet<PathBuf> = unix.filter_map(|socket| socket.name).collect();
    assert_eq!(named, BTreeSet::from([path.clone(), admin.path().to_owned()]));
    let ports: BTreeSet<u16> =
        tcp_listeners().into_iter().filter_map(|(inode, port)| held.contains(&inode).then_some(port)).collect();
    assert_eq!(ports, BTreeSet::from([cluster.address().port()]));
    let mode = fs::metadata(admin.path()).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    if rustix::process::geteuid().is_root() {
        for (user, gets_in) in [(OWNER, true), (STRANGER, false)] {
            assert_eq!(connects(user, admin.path()), gets_in, "user {user}");
            let seen = seen_by(user, &family);
            assert_eq!(seen.len(), if gets_in { 2 * family.len() } else { 0 }, "user {user} sees {seen:?}");
        }
    }
    cluster.stop();
}

fn as_user(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--"]);
    command
}

/// Whether somebody answers this user there.
fn connects(user: u32, socket: &Path) -> bool {
    let mut curl = as_user(user);
    curl.args(["curl", "--silent", "--max-time", "20", "--output", "/dev/null", "--unix-socket"]).arg(socket);
    curl.arg("http://sticky/status").status().expect("util-linux and curl").success()
}

/// What this user can find out of these processes: their descriptors, and their environments.
fn seen_by(user: u32, pids: &[u32]) -> Vec<String> {
    let script = r#"for pid; do ls /proc/$pid/fd/0 && wc -c </proc/$pid/environ; done 2>/dev/null"#;
    let mut shell = as_user(user);
    shell.args(["sh", "-c", script, "sh"]).args(pids.iter().map(ToString::to_string));
    let output = shell.output().expect("util-linux");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The numbers and inodes of a process' sockets.
fn sockets(pid: u32) -> Vec<(i32, u64)> {
    let socket = |(number, what): (u32, PathBuf)| {
        let inode = what.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((i32::try_from(number).ok()?, inode))
    };
    process::descriptors(pid).into_iter().filter_map(socket).collect()
}

/// A unix socket as the kernel lists it.
struct UnixSocket {
    inode: u64,
    is_seqpacket: bool,
    name: Option<PathBuf>,
}

impl UnixSocket {
    /// Every one of this network namespace.
    fn all() -> Vec<Self> {
        let table = fs::read_to_string("/proc/net/unix").expect("a table");
        table.lines().skip(1).filter_map(Self::of_line).collect()
    }

    /// `Num RefCount Protocol Flags Type St Inode Path`.
    fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace().skip(4);
        let is_seqpacket = fields.next()? == "0005";
        Some(Self { inode: fields.nth(1)?.parse().ok()?, is_seqpacket, name: fields.next().map(PathBuf::from) })
    }
}

/// The inodes and ports of all sockets that listen for TCP.
fn tcp_listeners() -> Vec<(u64, u16)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (*fields.get(3)? == "0A").then_some((fields.get(9)?.parse().ok()?, port))
    };
    tables.iter().flat_map(|table| table.lines().skip(1).filter_map(of_line)).collect()
}

// === garbage ===

/// A copy of each socket between processes that this one holds, but for the one with this number.
fn channels_of(pid: u32, but: Option<i32>) -> Vec<OwnedFd> {
    let all: BTreeSet<u64> =
        UnixSocket::all().into_iter().filter(|socket| socket.is_seqpacket).map(|socket| socket.inode).collect();
    let is_meant = |(number, inode): &(i32, u64)| all.contains(inode) && Some(*number) != but;
    sockets(pid).into_iter().filter(is_meant).map(|(number, _)| copy(pid, number)).collect()
}

/// A copy of another process' descriptor.
fn copy(pid: u32, number: i32) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a process");
    rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty()).expect("its descriptor")
}

/// The number of a process' control socket.
fn control_of(pid: u32) -> i32 {
    let marker = process::variable(pid, "STICKY_CONTROL").expect("a child of a supervisor");
    let number = marker.split(' ').find_map(|field| field.strip_prefix("fd=")?.parse().ok());
    number.unwrap_or_else(|| panic!("{marker}"))
}

/// Writes one packet, with a descriptor or without. Where there is no room, or no reader, that is all right.
fn write(socket: &OwnedFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !rights.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags);
}

/// Packets of every kind that is wrong: no descriptor, one that is no connection, another version, too much, nothing that
/// makes sense.
fn write_garbage(socket: &OwnedFd, random: &mut Random) {
    let null = fs::File::open("/dev/null").expect("/dev/null");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    drop(ours);
    for _ in 0..3 {
        let length = random.between(1, 200);
        write(socket, &random.bytes(length), None);
        write(socket, &[&[9], &random.bytes(length)[..]].concat(), Some(null.as_fd()));
        write(socket, &[&[1, 77], &random.bytes(length)[..]].concat(), Some(theirs.as_fd()));
    }
    write(socket, &vec![1; 70_000], Some(null.as_fd()));
    // Of the right form: something that is no connection, and one whose client has gone and had sent no HTTP.
    let header = |is_unix: u8| [&[1, 2, 0, 0, 0, 0, is_unix][..], &[0; 21]].concat();
    write(socket, &header(0), Some(null.as_fd()));
    write(socket, &header(1), Some(null.as_fd()));
    write(socket, &[header(1), b"\0\x01nonsense\r\n\r\n".to_vec()].concat(), Some(theirs.as_fd()));
}

/// Whoever reads a slot's channel, or a control socket, says that it was garbage, counts it, and goes on.
fn garbage_in_channels_kills_nobody(bed: &Bed) {
    let cluster = by_header(bed, 2).with_admin().up();
    let admin = Admin::of(&cluster);
    eventually("the admin process answers", PATIENCE, || admin.try_status().is_ok());
    let client = cluster.client().timeout(PATIENCE);
    let keys = Key::of_each_worker(&client, 2);
    let mut kept = client.connect().expect("a connection");
    let mut is_served = || {
        for key in keys.iter().cycle().take(20) {
            key.check(&kept.exchange(&key.on(Request::get("/"))).expect("an answer"));
        }
    };
    is_served();
    let (before, asked) = (cluster.pids(2), cluster.admin());
    let open = |pid: &u32| process::descriptors(*pid).len();
    let held: Vec<usize> = before.values().map(open).collect();
    let mut random = Random::drawn();
    // The supervisor holds both ends of everything; what is written into its ends of control sockets, its children read.
    let mut channels = channels_of(cluster.supervisor(), None);
    before.values().for_each(|pid| channels.extend(channels_of(*pid, Some(control_of(*pid)))));
    assert!(channels.len() >= 2 * 2 + 3 + 2 * 2, "only {}", channels.len());
    channels.iter().for_each(|channel| write_garbage(channel, &mut random));
    drop(channels);
    is_served();
    for words in ["makes no sense", "of another version", "is too long", "a message of the supervisor is lost"] {
        cluster.events().expect(words, PATIENCE);
    }
    // The admin process ends with what it does not understand, and is started again.
    eventually("another admin process answers", PATIENCE, || cluster.admin() != asked && admin.try_status().is_ok());
    eventually("it is counted", PATIENCE, || counts_all(&admin));
    assert_eq!(cluster.pids(2), before, "nobody has died of it");
    eventually("no descriptor is kept", PATIENCE, || {
        before.values().zip(&held).all(|(pid, held)| process::descriptors(*pid).len() <= *held)
    });
    cluster.reload();
    is_served();
    cluster.stop();
}

/// Whether each kind has been counted for each worker.
fn counts_all(admin: &Admin) -> bool {
    let metrics = admin.metrics();
    let counted = |worker: u16, outcome: &str| {
        let name = format!("sticky_handoff_outcomes_total{{worker=\"{worker}\",outcome=\"{outcome}\"}}");
        metrics.get(&name).is_some_and(|count| *count > 0.0)
    };
    (0..2).all(|worker| ["truncated", "version", "out_of_descriptors"].iter().all(|outcome| counted(worker, outcome)))
}

/// A worker in whose name garbage is said is none to be trusted any more: it is replaced, and nobody else notices.
fn who_talks_nonsense_is_replaced(bed: &Bed) {
    let cluster = bed.launch().up();
    let before = cluster.pids(2);
    let others: Vec<Client> = Client::loopback_addresses(200)
        .map(|address| cluster.client().from(address))
        .filter(|client| client.get("/").expect("an answer").worker() == 0)
        .take(5)
        .collect();
    let mut kept: Vec<_> = others.iter().map(|client| client.connect().expect("a connection")).collect();
    assert!(kept.iter_mut().all(|connection| connection.get("/").expect("an answer").worker() == 0));
    let control = copy(before[&1], control_of(before[&1]));
    write(&control, &Random::drawn().bytes(100), None);
    drop(control);
    cluster.events().expect(&format!("process {} talks nonsense", before[&1]), PATIENCE);
    for connection in &mut kept {
        let answer = connection.get("/").expect("an answer");
        assert_eq!((answer.worker(), answer.pid()), (0, before[&0]));
    }
    eventually("another has come", PATIENCE, || served_by_another(&cluster, before[&1]));
    assert_eq!(cluster.pids(2)[&0], before[&0]);
    cluster.stop();
}

fn served_by_another(cluster: &TestCluster, former: u32) -> bool {
    let workers = cluster.workers();
    workers.len() == 2 && !workers.contains(&former) && cluster.pids(2)[&1] != former
}
