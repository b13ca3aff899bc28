//! The program by which the kernel gives a new connection to the listener of the processor that its packets come in on,
//! so that interrupt, TCP and core share a cache. Does not know who listens.

use libc::{BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{SKF_AD_CPU, SKF_AD_OFF, sock_filter};

/// Beyond every listener's number: the kernel then chooses by its hash of the addresses, as without a program.
const BY_HASH: u32 = u32::MAX;

/// A classic BPF program for `SO_ATTACH_REUSEPORT_CBPF`: for a packet that is handled on `cpus[i]` it returns `i`, the
/// number of a listener in the order in which they began to listen. Packets on any other processor are left to the
/// kernel's hash.
///
/// `cpus` is ascending. Numbers in a row take four instructions together, however many they are, and a single one takes
/// two, so that no list of [`CORES_MAX`](crate::base::ids::CORES_MAX) comes near the kernel's bound of 4096.
#[must_use]
pub fn program(cpus: &[usize]) -> Vec<sock_filter> {
    debug_assert!(cpus.is_sorted());
    let mut program = vec![statement(BPF_LD | BPF_W | BPF_ABS, (SKF_AD_OFF + SKF_AD_CPU) as u32)];
    let mut index = 0;
    for run in cpus.chunk_by(|one, next| one + 1 == *next) {
        let (first, last) = (run[0] as u32, run[run.len() - 1] as u32);
        if first == last {
            program.push(jump(BPF_JEQ, first, 0, 1));
            program.push(statement(BPF_RET | BPF_K, index));
        } else {
            program.push(jump(BPF_JGE, first, 0, 3));
            program.push(jump(BPF_JGT, last, 2, 0));
            // Modulo 2³², so that it may also subtract.
            program.push(statement(BPF_ALU | BPF_ADD | BPF_K, index.wrapping_sub(first)));
            program.push(statement(BPF_RET | BPF_A, 0));
        }
        index += run.len() as u32;
    }
    program.push(statement(BPF_RET | BPF_K, BY_HASH));
    program
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on `yes` instructions behind the next one if the test holds, `no` behind it otherwise.
fn jump(test: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt: yes, jf: no, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::CORES_MAX;

    /// What the kernel would make of it on this processor.
    fn run(program: &[sock_filter], cpu: u32) -> u32 {
        let (mut a, mut at) = (0_u32, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let holds = match code & !BPF_K {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    assert_eq!(k as i32, SKF_AD_OFF + SKF_AD_CPU);
                    a = cpu;
                    continue;
                }
                code if code == BPF_ALU | BPF_ADD => {
                    a = a.wrapping_add(k);
                    continue;
                }
                code if code == BPF_RET | BPF_A => return a,
                code if code == BPF_RET | BPF_K => return k,
                code if code == BPF_JMP | BPF_JEQ => a == k,
                code if code == BPF_JMP | BPF_JGE => a >= k,
                code if code == BPF_JMP | BPF_JGT => a > k,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn each_processor_has_the_listener_of_its_core() {
        for cpus in [
            vec![0],
            vec![5],
            vec![0, 1],
            vec![0, 1, 2, 3],
            vec![4, 5, 6, 7],
            vec![0, 2, 4, 6],
            vec![1, 2, 3, 8, 10, 11, 64],
            (0..CORES_MAX).map(|core| core * 2).collect(),
            (100..100 + CORES_MAX).collect(),
        ] {
            let program = program(&cpus);
            assert!(program.len() <= 4096, "{} instructions for {cpus:?}", program.len());
            for cpu in 0..2 * CORES_MAX + 200 {
                let wanted = cpus.iter().position(|other| *other == cpu).map_or(BY_HASH, |index| index as u32);
                assert_eq!(run(&program, cpu as u32), wanted, "processor {cpu} of {cpus:?}");
            }
        }
    }
}
