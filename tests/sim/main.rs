//! A whole machine of several cores in one thread: shards, rings, publishers and clients take steps in an order that a
//! seed decides, and a naive model says who must, may and must not have got which event in which order.
//!
//! `SIM_SEEDS=20000 cargo test --test sim` runs more seeds; `SIM_SEED=17` runs one.

mod model;
mod world;

use world::World;

/// Seeds per run. Each is a machine of its own: one to four cores, rings of two to sixteen slots.
const SEEDS: u64 = 3_000;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

#[test]
fn every_socket_gets_what_is_its_own_in_order_and_nothing_else() {
    let (mut certainties, mut acks, mut upgrades, mut lost, mut shed) = (0, 0, 0, 0, 0);
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..world.phases() {
                world.mingle();
                world.settle();
            }
            world.finish();
            (world.certainties(), world.acks(), world.upgrades(), world.lost(), world.shed())
        });
        match run {
            Ok((decided, acknowledged, upgraded, missed, cut)) => {
                certainties += decided;
                acks += acknowledged;
                upgrades += upgraded;
                lost += missed;
                shed += cut;
            }
            Err(panic) => {
                eprintln!("SIM_SEED={seed} fails");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{certainties} deliveries were certain, and came; {acks} were acknowledged in time; {upgrades} upgrades");
    println!("{lost} of them were missed by who lagged; {shed} clients were cut as memory was short");
    let single = seeds().len() == 1;
    let found = [certainties as u64, acks as u64, upgrades, lost as u64, shed];
    assert!(single || found.iter().all(|count| *count > 0), "a model that decides nothing finds nothing");
}

#[test]
fn a_client_that_does_not_answer_is_gone_when_interval_and_timeout_have_passed() {
    for seed in seeds().into_iter().take(100) {
        let mut world = World::new(seed);
        world.silent_client_is_gone_in_time();
    }
}
