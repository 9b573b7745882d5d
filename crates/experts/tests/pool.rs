//! The compute pool: where a job runs, and that row blocks cover every row once on either side.

use std::sync::mpsc;
use std::thread;

use expertmesh_experts::pieces::INLINE_NS;
use expertmesh_experts::{ComputePool, for_each_row_block};

#[test]
fn short_jobs_run_here_and_long_ones_on_the_pool() {
    let pool = ComputePool::new(2, "test").unwrap();
    assert_eq!(pool.threads(), 2);
    for (cost_ns, inline) in [(0, true), (INLINE_NS, true), (INLINE_NS + 1, false)] {
        let (sender, receiver) = mpsc::channel();
        pool.run(cost_ns, move || {
            sender.send(thread::current().id()).unwrap()
        });
        assert_eq!(
            receiver.recv().unwrap() == thread::current().id(),
            inline,
            "{cost_ns} ns"
        );
    }
}

#[test]
fn a_pool_without_threads_is_an_error() {
    let error = ComputePool::new(0, "test").unwrap_err();
    assert_eq!(
        error.to_string(),
        "compute pool: threads is 0, expected at least 1"
    );
}

#[test]
fn row_blocks_cover_every_row_once() {
    let pool = ComputePool::new(2, "test").unwrap();
    for (rows, width) in [(0, 3), (1, 3), (64, 3), (65, 3), (300, 3), (5, 0)] {
        let fill = || {
            let mut out = vec![0.0f32; rows * width];
            for_each_row_block(&mut out, width, |first, block| {
                for (row, values) in block.chunks_exact_mut(width).enumerate() {
                    values
                        .iter_mut()
                        .for_each(|value| *value += (first + row + 1) as f32);
                }
            });
            out
        };
        let expected: Vec<f32> = (0..rows)
            .flat_map(|row| vec![(row + 1) as f32; width])
            .collect();
        assert_eq!(fill(), expected, "{rows} rows here");
        assert_eq!(pool.install(fill), expected, "{rows} rows on the pool");
    }
}
