//! One course of events, and the end of the broker after any number of steps.

use super::faults::End;
use super::mutations::Mutation;
use super::node::{Failed, Node};
use super::{World, open, take_stock};

/// More steps than it takes until everything is done.
const STEPS: usize = 48;

/// A client rejects messages and deletes their queue, and the power fails after so many steps.
fn end_of_a_queue(shards: u16, steps: usize, mutation: Mutation) {
    let mut world = World::new(steps as u64, mutation);
    let broker = open(&world.disk, shards, world.clock.now());
    let mut node = Node::new(&mut world, &broker);
    node.declare_everything();
    node.come_with_messages(0);
    node.world.is_busy = true;
    node.reject_and_delete(0);
    let owners = usize::from(shards) + 1;
    for step in 0..steps {
        let owner = step % owners;
        if owner < usize::from(shards) {
            node.step_shard(owner);
        } else {
            let (Ok(_) | Err(Failed)) = node.step_writer();
        }
        node.listen(0);
    }
    drop(node);
    drop(broker);
    world.lose(End::Crash);
    world.oracle.end_life();
    world.is_busy = false;
    take_stock(&mut world, shards);
}

#[test]
fn letters_survive_the_end_of_their_source() {
    for shards in 1..=4 {
        (0..STEPS * usize::from(shards)).for_each(|steps| end_of_a_queue(shards, steps, Mutation::None));
    }
}

#[test]
fn queues_that_are_removed_early_are_found() {
    let fails = |steps| std::panic::catch_unwind(|| end_of_a_queue(1, steps, Mutation::RemoveEarly)).is_err();
    assert!((0..STEPS).any(fails));
}
