//! Experts that stop in the middle of their work.

use std::sync::{Arc, Condvar, Mutex};

use expertmesh_checkpoint::{SyntheticLayer, SyntheticSpec};
use expertmesh_experts::{Expert, ExpertError, ExpertSource, Scratch};
use tokio::sync::mpsc;

/// Hears of every row block that reaches a trapped expert.
pub type Entered = mpsc::UnboundedReceiver<()>;

/// The experts of a synthetic layer, one of which waits while the trap is closed.
pub struct Trap {
    layer: SyntheticLayer,
    trapped: usize,
    door: Arc<Door>,
}

struct Door {
    open: Mutex<bool>,
    opened: Condvar,
    entered: mpsc::UnboundedSender<()>,
}

struct Trapped {
    expert: Arc<dyn Expert>,
    door: Arc<Door>,
}

/// So many operations that no estimate takes it for short work.
const FLOPS: u64 = 1 << 40;

// === impl Trap ===

impl Trap {
    /// Experts of `spec` of which `trapped` waits until [`Trap::open`].
    pub fn new(spec: SyntheticSpec, trapped: usize) -> (Arc<Self>, Entered) {
        let (entered, hears) = mpsc::unbounded_channel();
        let trap = Self {
            layer: SyntheticLayer::new(spec).expect("a shape that exists"),
            trapped,
            door: Arc::new(Door {
                open: Mutex::new(false),
                opened: Condvar::new(),
                entered,
            }),
        };
        (Arc::new(trap), hears)
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        *self.door.open.lock().expect("no panic inside") = true;
        self.door.opened.notify_all();
    }
}

impl ExpertSource for Trap {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        let loaded = self.layer.load(expert)?;
        if expert != self.trapped {
            return Ok(loaded);
        }
        Ok(Arc::new(Trapped {
            expert: loaded,
            door: Arc::clone(&self.door),
        }))
    }
}

// === impl Trapped ===

impl Expert for Trapped {
    fn hidden(&self) -> usize {
        self.expert.hidden()
    }

    fn weight_bytes(&self) -> usize {
        self.expert.weight_bytes()
    }

    fn flops_per_row(&self) -> u64 {
        FLOPS
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError> {
        // A test that does not listen does not mind.
        let _ = self.door.entered.send(());
        let mut open = self.door.open.lock().expect("no panic inside");
        while !*open {
            open = self.door.opened.wait(open).expect("no panic inside");
        }
        drop(open);
        self.expert.forward(x, y, scratch)
    }
}
