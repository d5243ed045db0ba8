//! The kernel dispatch: a classic BPF program that chooses the listener of each new connection.
//!
//! ```text
//! first packet ─► address of the client ─► key ─► slot 0 scores it, slot 1 scores it, … ─► the best slot's number
//!                                                 (unrolled: classic BPF has no loops)      = index of its listener
//! ```
//!
//! It computes what [`KernelHash`] computes, instruction by instruction, and it needs no privilege. The
//! kernel numbers the listeners of a group by the order in which they began to listen, which is the order of the
//! slots. A number outside the group would make the kernel fall back to a hash over both ports: never returned.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockAddr, Socket, Type};

use crate::id::WorkerId;
use crate::listener::{self, ListenAddress, ListenError, ListenerSet, Sharing};
use crate::placement::{KernelHash, KeyMix, MULTIPLIERS, SHIFTS, SLOT_MULTIPLIER, SLOT_SHIFT, SlotMix};
use crate::sys::reuseport::{Instruction, attach_program};

/// Why the kernel did not take the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no slot to choose. The group keeps the program it has.
    #[error("no slot is left to place connections on")]
    NoSlots,
    /// The program is too large for this machine's limit: raise it, or use fewer workers.
    #[error(
        "the placement of {slots} workers needs more memory than net.core.optmem_max allows: set it to at least 65536"
    )]
    TooLarge {
        /// How many slots the program places on.
        slots: usize,
    },
    /// The system refused for another reason.
    #[error("the kernel did not take the placement program")]
    Refused(#[source] io::Error),
}

/// Makes the kernel place new connections as `hash` says, in the group of listeners that `listener` belongs to.
///
/// It replaces the group's earlier placement between two packets: that is how a slot is evicted.
///
/// # Errors
///
/// The group keeps the placement it has; see [`AttachError`].
pub(crate) fn attach(listener: impl AsFd, hash: &KernelHash) -> Result<(), AttachError> {
    let slots = hash.slots().len();
    if slots == 0 {
        return Err(AttachError::NoSlots);
    }
    attach_program(listener.as_fd(), &program(hash)).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOMEM) => AttachError::TooLarge { slots },
        _ => AttachError::Refused(source),
    })
}

// === The program ===

/// Loads at this offset count from the network header. Others would count from the end of the TCP header, because
/// that is what a program of a listener group sees as the packet.
const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;
/// Where an IPv4 header has the source address.
const IPV4_SOURCE: u32 = NETWORK_HEADER + 12;
/// Where an IPv6 header has the source address.
const IPV6_SOURCE: u32 = NETWORK_HEADER + 8;
/// What a score keeps of the hash; the slot takes the rest.
const SCORE_MASK: u32 = !SLOT_MASK;
const SLOT_MASK: u32 = 0xff;

/// The scratch words of the program.
const KEY: u32 = 0;
const BEST: u32 = 1;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD: u32 = libc::BPF_LD | libc::BPF_MEM;
const LOAD_X: u32 = libc::BPF_LDX | libc::BPF_MEM;
const STORE: u32 = libc::BPF_ST;
const COPY_TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const ADD_X: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const OR: u32 = libc::BPF_ALU | libc::BPF_OR | libc::BPF_K;
const XOR: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_K;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_GREATER_X: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_X;
const RETURN: u32 = libc::BPF_RET | libc::BPF_A;

/// The program that returns [`KernelHash::owner`] of a packet's source.
fn program(hash: &KernelHash) -> Vec<Instruction> {
    let (key, slots) = hash.constants();
    let mut program = reduce(key);
    for (position, &slot) in slots.iter().enumerate() {
        program.extend(score(slot));
        match position {
            0 => program.push(step(STORE, BEST)),
            _ => program.extend([step(LOAD_X, BEST), branch(IF_GREATER_X, 0, 0, 1), step(STORE, BEST)]),
        }
    }
    program.extend([step(LOAD, BEST), step(AND, SLOT_MASK), step(RETURN, 0)]);
    program
}

/// Leaves the key of the packet's source in `KEY`.
fn reduce(key: KeyMix) -> Vec<Instruction> {
    let network = ipv6_network(key);
    let mapped = ipv6_mapped(network.len());
    let ipv4 = [step(LOAD_WORD, IPV4_SOURCE), step(JUMP, (mapped.len() + network.len()) as u32)];

    let mut program = vec![step(LOAD_BYTE, NETWORK_HEADER), step(AND, 0xf0)];
    program.push(branch(IF_EQUAL, 0x40, 0, ipv4.len() as u8));
    program.extend(ipv4);
    program.extend(mapped);
    program.extend(network);
    program.push(step(XOR, key.word));
    program.extend(scramble());
    program.push(step(STORE, KEY));
    program
}

/// Continues with the next block, or loads the IPv4 address and skips the next block if the IPv6 source is a mapped
/// one. TCP sees such packets nowhere; the twin treats them so, and the two agree on everything.
fn ipv6_mapped(next_block: usize) -> [Instruction; 8] {
    let word = |index: u32| step(LOAD_WORD, IPV6_SOURCE + 4 * index);
    [
        word(0),
        branch(IF_EQUAL, 0, 0, 6),
        word(1),
        branch(IF_EQUAL, 0, 0, 4),
        word(2),
        branch(IF_EQUAL, 0xffff, 0, 2),
        word(3),
        step(JUMP, next_block as u32),
    ]
}

/// Reduces the first 64 bits of the IPv6 source to one word.
fn ipv6_network(key: KeyMix) -> Vec<Instruction> {
    let mut block = vec![step(LOAD_WORD, IPV6_SOURCE), step(XOR, key.ipv6)];
    block.extend(scramble());
    block.extend([step(COPY_TO_X, 0), step(LOAD_WORD, IPV6_SOURCE + 4), step(ADD_X, 0)]);
    block
}

fn scramble() -> impl Iterator<Item = Instruction> {
    let rounds = SHIFTS.into_iter().zip(MULTIPLIERS);
    let last = xor_shifted(SHIFTS[SHIFTS.len() - 1]);
    rounds.flat_map(|(shift, factor)| xor_shifted(shift).into_iter().chain([step(MULTIPLY, factor)])).chain(last)
}

/// Leaves the slot's score of the key in A, the slot itself in its low bits.
fn score(mix: SlotMix) -> [Instruction; 9] {
    let [copy, shift, xor] = xor_shifted(SLOT_SHIFT);
    [
        step(LOAD, KEY),
        step(XOR, mix.mask),
        step(MULTIPLY, mix.multiplier),
        copy,
        shift,
        xor,
        step(MULTIPLY, SLOT_MULTIPLIER),
        step(AND, SCORE_MASK),
        step(OR, u32::from(mix.slot.get())),
    ]
}

/// A ^= A >> shift
fn xor_shifted(shift: u32) -> [Instruction; 3] {
    [step(COPY_TO_X, 0), step(SHIFT_RIGHT, shift), step(XOR_X, 0)]
}

fn step(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips as many instructions as said for either case.
fn branch(code: u32, k: u32, if_so: u8, if_not: u8) -> Instruction {
    Instruction { code: code as u16, jt: if_so, jf: if_not, k }
}

// === The proof ===

/// As many slots prove the arithmetic and the numbering as well as 256 do, in less time.
const PROOF_SLOTS: u16 = 4;
const PROOF_BACKLOG: u32 = 16;
/// Connections on loopback take microseconds. Where a firewall swallows them, start-up says so and goes on.
const PROOF_TIMEOUT: Duration = Duration::from_secs(1);

/// Why it is not certain that this kernel places connections as its twin says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The throw-away listeners could not be made.
    #[error("cannot try out the kernel's placement")]
    Listen(#[from] ListenError),
    /// A connection to them failed; it says nothing about the placement.
    #[error("cannot try out the kernel's placement: {attempt} failed")]
    Try {
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel dispatch does not work here: use another.
    #[error("the kernel placed a connection from {client} on slot {kernel} instead of {expected}")]
    Disagrees {
        /// The source of the connection.
        client: IpAddr,
        /// The slot the twin names.
        expected: WorkerId,
        /// The slot whose listener got it.
        kernel: WorkerId,
    },
}

/// Connects to throw-away listeners on loopback, from an IPv4 address for each slot and from `::1` where there is
/// one, and compares the kernel's choice with the twin's.
///
/// `seed` and `workers` are those of the cluster; only the first few slots are tried. Blocks for about a millisecond,
/// and for at most a second per connection where loopback is broken.
///
/// # Errors
///
/// See [`ProofError`]; only [`ProofError::Disagrees`] means that the kernel is wrong.
pub(crate) fn prove(seed: u64, workers: u16) -> Result<(), ProofError> {
    let hash = KernelHash::of_all(seed, workers.min(PROOF_SLOTS));
    prove_from(&hash, loopback_clients(&hash))?;
    match prove_from(&hash, [Ipv6Addr::LOCALHOST.into()]) {
        Err(ProofError::Listen(error)) if error.is_unavailable() => Ok(()),
        result => result,
    }
}

/// For each slot an address in 127.0.0.0/8 that belongs to it.
fn loopback_clients(hash: &KernelHash) -> Vec<IpAddr> {
    let candidates = (1..=u32::from(u16::MAX)).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0000 + n)));
    hash.slots().filter_map(|slot| candidates.clone().find(|&address| hash.owner(address) == Some(slot))).collect()
}

fn prove_from(hash: &KernelHash, clients: impl IntoIterator<Item = IpAddr>) -> Result<(), ProofError> {
    let mut group = None;
    for client in clients {
        let group = match &group {
            Some(group) => group,
            None => group.insert(throw_away_group(client, hash)?),
        };
        let kernel = place_one(client, group)?;
        if let Some(expected) = hash.owner(client).filter(|&expected| expected != kernel) {
            return Err(ProofError::Disagrees { client, expected, kernel });
        }
    }
    Ok(())
}

/// Listeners that this client can reach and nobody from outside.
fn throw_away_group(client: IpAddr, hash: &KernelHash) -> Result<ListenerSet, ListenError> {
    let loopback = match client {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let address = ListenAddress::Socket(SocketAddr::new(loopback, 0));
    // Those that are left out get nothing: that is tried, too.
    let slots = PROOF_SLOTS.max(hash.slots().len() as u16);
    let mut sets = listener::take(&[address], Sharing::PerSlot(hash, slots), PROOF_BACKLOG)?;
    Ok(sets.remove(0))
}

/// Connects from `client` and says on whose listener the connection arrived.
fn place_one(client: IpAddr, group: &ListenerSet) -> Result<WorkerId, ProofError> {
    let failed = |attempt| move |source: io::Error| ProofError::Try { attempt, source };
    let listeners = group.kind().sockets();
    let server = listeners[0].local_addr().map_err(failed("asking for a listener's address"))?;
    let connection = connect(client, &server).map_err(failed("connecting on loopback"))?;
    let position = wait_readable(listeners).map_err(failed("waiting for a connection on loopback"))?;
    let accepted = listeners[position].accept().map_err(failed("accepting a connection on loopback"))?;
    drop((accepted, connection));
    Ok(WorkerId::new(position as u16))
}

fn connect(client: IpAddr, server: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(server.domain(), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    // The end of this connection is a reset, so that it leaves no TIME_WAIT behind.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(server, PROOF_TIMEOUT)?;
    Ok(socket)
}

/// The position of the first listener that has a connection.
fn wait_readable(listeners: &[Socket]) -> io::Result<usize> {
    let mut waiting: Vec<_> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: PROOF_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut waiting, Some(&timeout)))?;
    waiting.iter().position(|listener| !listener.revents().is_empty()).ok_or_else(|| io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The network header of a packet from this source.
    fn packet(source: IpAddr) -> Vec<u8> {
        match source {
            IpAddr::V4(source) => [&[0x45; 12], source.octets().as_slice(), &[127, 0, 0, 1]].concat(),
            IpAddr::V6(source) => [&[0x60; 8], source.octets().as_slice(), &[0xee; 16]].concat(),
        }
    }

    /// What the kernel would return: classic BPF as far as the program uses it.
    fn interpret(program: &[Instruction], header: &[u8]) -> u32 {
        let (mut a, mut x, mut memory, mut next) = (0u32, 0u32, [None; 16], 0);
        let bytes = |k: u32, count: usize| &header[(k - NETWORK_HEADER) as usize..][..count];
        loop {
            let Instruction { code, jt, jf, k } = program[next];
            next += 1;
            let jump = |condition: bool| usize::from(if condition { jt } else { jf });
            match u32::from(code) {
                LOAD_BYTE => a = bytes(k, 1)[0].into(),
                LOAD_WORD => a = u32::from_be_bytes(bytes(k, 4).try_into().unwrap()),
                LOAD => a = memory[k as usize].unwrap(),
                LOAD_X => x = memory[k as usize].unwrap(),
                STORE => memory[k as usize] = Some(a),
                COPY_TO_X => x = a,
                ADD_X => a = a.wrapping_add(x),
                AND => a &= k,
                OR => a |= k,
                XOR => a ^= k,
                XOR_X => a ^= x,
                MULTIPLY => a = a.wrapping_mul(k),
                SHIFT_RIGHT => a >>= k,
                JUMP => next += k as usize,
                IF_EQUAL => next += jump(a == k),
                IF_GREATER_X => next += jump(a > x),
                RETURN => return a,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        let ipv6 = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(ipv6),
            any::<u32>().prop_map(move |bits| ipv6(0xffff_0000_0000 + u128::from(bits))),
            // Nearly mapped: one of the words that tell differs in one bit.
            (any::<u32>(), 32u32..128)
                .prop_map(move |(low, bit)| ipv6((0xffff_0000_0000 + u128::from(low)) ^ 1 << bit)),
        ]
    }

    fn slots() -> impl Strategy<Value = BTreeSet<u16>> {
        prop_oneof![
            proptest::collection::btree_set(0u16..256, 1..=12),
            proptest::collection::btree_set(0u16..256, 1..=256)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn program_and_twin_never_disagree(seed: u64, slots in slots(), source in addresses()) {
            let hash = KernelHash::new(seed, &slots.into_iter().map(WorkerId::new).collect::<Vec<_>>());
            let expected = hash.owner(source).unwrap();
            prop_assert_eq!(interpret(&program(&hash), &packet(source)), u32::from(expected.get()));
        }
    }

    #[test]
    fn the_largest_program_fits() {
        let length = |workers| program(&KernelHash::of_all(1, workers)).len();
        assert_eq!(length(8), 139);
        assert_eq!(length(256), 3115);
    }

    #[test]
    fn the_kernel_agrees_on_loopback() {
        for workers in [1, 2, 3, 4, 256] {
            prove(0x5eed, workers).unwrap();
        }
    }

    #[test]
    fn a_wrong_kernel_is_noticed() {
        let hash = KernelHash::of_all(1, 2);
        let client = *loopback_clients(&hash).last().unwrap();
        let group = throw_away_group(client, &hash).unwrap();
        group.place(&KernelHash::new(1, &[WorkerId::new(0)])).unwrap();
        assert_eq!(hash.owner(client), Some(WorkerId::new(1)));
        assert_eq!(place_one(client, &group).unwrap(), WorkerId::new(0));
    }

    #[test]
    fn an_evicted_slot_loses_only_its_own_addresses() {
        let all = KernelHash::of_all(9, 4);
        let rest = KernelHash::new(9, &[0, 2, 3].map(WorkerId::new));
        let clients: Vec<_> = (1..=200).map(|n| IpAddr::V4(Ipv4Addr::new(127, n, 3, 7))).collect();
        let group = throw_away_group(clients[0], &all).unwrap();
        for hash in [&all, &rest, &all] {
            group.place(hash).unwrap();
            for &client in &clients {
                for _ in 0..3 {
                    assert_eq!(place_one(client, &group).unwrap(), hash.owner(client).unwrap(), "{client}");
                }
            }
        }
    }

    #[test]
    fn the_largest_group_works() {
        let hash = KernelHash::of_all(2, 256);
        let client = IpAddr::V4(Ipv4Addr::new(127, 8, 8, 8));
        let group = throw_away_group(client, &hash).unwrap();
        assert_eq!(place_one(client, &group).unwrap(), hash.owner(client).unwrap());
    }

    #[test]
    fn nothing_to_choose_is_an_error() {
        let socket = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(matches!(attach(&socket, &KernelHash::new(1, &[])), Err(AttachError::NoSlots)));
    }

    #[test]
    fn a_listener_without_a_group_is_an_error() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hash = KernelHash::of_all(1, 2);
        assert!(matches!(attach(&socket, &hash), Err(AttachError::Refused(_))));
    }
}
