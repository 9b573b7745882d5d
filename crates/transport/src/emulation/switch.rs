//! A switch of packets between processes that each have a network of their own.
//!
//! Every endpoint's only way out is a TUN device, whose other end is here. The kernels' TCP runs over
//! the links as it would between machines: with windows, acknowledgements and packets sent again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio_tun::Tun;

use crate::emulation::packets::Packets;
use crate::emulation::timer::Timer;
use crate::emulation::{Emulation, Shaping};
use crate::error::TransportError;
use crate::watchdog::monotonic_ns;

/// The links of an emulated network, outside of the processes that use them.
///
/// It lives on the thread that made it, in a current-thread runtime with IO.
pub struct Switch {
    emulation: Emulation,
    shaping: SwitchShaping,
    devices: Vec<Tun>,
}

/// What a [`Switch`] does to packets from now on. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct SwitchShaping(Arc<AtomicU8>);

/// Largest IP packet, bytes: jumbo frames of Ethernet, with which headers are 0.6 % of what is sent.
const MTU: u16 = 9000;
/// Network of all endpoints, of 16 bits: a block for private use (RFC 1918).
const NETWORK: [u8; 2] = [10, 86];
/// Name of the device in each endpoint's network.
const DEVICE: &str = "mesh0";
/// The header of an IPv4 packet without options, and where it has its destination (RFC 791 §3.1).
const IPV4_HEADER: usize = 20;
const DESTINATION: usize = 16;

/// Of a running switch.
struct State {
    packets: RefCell<Packets>,
    devices: Vec<Tun>,
    shaping: SwitchShaping,
    /// That a packet came which is due before what was awaited, or that a device failed.
    news: Notify,
    failure: Cell<Option<io::Error>>,
    /// Packets that a device did not take.
    refused: Cell<u64>,
}

// === impl Switch ===

impl Switch {
    /// A switch without devices, for the links of `emulation`.
    pub fn new(emulation: Emulation) -> Self {
        Self {
            emulation,
            shaping: SwitchShaping::default(),
            devices: Vec::new(),
        }
    }

    /// Gives the next endpoint a device: in the network of the calling thread, which must have the
    /// right to make one.
    ///
    /// # Errors
    /// [`TransportError::Emulation`] with what the system says.
    pub fn connect_here(&mut self) -> Result<(), TransportError> {
        let endpoint = self.devices.len() as u32;
        let device = Tun::builder()
            .name(DEVICE)
            .address(Self::address(endpoint))
            .netmask(Ipv4Addr::new(255, 255, 0, 0))
            .mtu(i32::from(MTU))
            .up()
            .build();
        let refused = |reason: String| TransportError::Emulation {
            reason: format!("the system gives no TUN device: {reason}"),
        };
        let mut device = device.map_err(|error| refused(error.to_string()))?;
        let queue = device.pop();
        self.devices
            .push(queue.ok_or_else(|| refused("it has no queue".to_owned()))?);
        Ok(())
    }

    /// Where `endpoint` is in this network.
    pub fn address(endpoint: u32) -> Ipv4Addr {
        // The network itself has the first address.
        let [_, _, high, low] = endpoint.saturating_add(1).to_be_bytes();
        Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low)
    }

    /// Endpoints that [`Self::address`] has room for.
    pub const MOST_ENDPOINTS: usize = 0xfffe;

    /// What changes the shaping while the switch runs.
    pub fn shaping(&self) -> SwitchShaping {
        self.shaping.clone()
    }

    /// Carries packets. Ends only when a device fails, with what the system says.
    pub async fn run(self) -> TransportError {
        let stopped = |error: io::Error| TransportError::Emulation {
            reason: format!("the switch of packets cannot go on: {error}"),
        };
        let timer = match Timer::new() {
            Ok(timer) => timer,
            Err(error) => return stopped(error),
        };
        let state = Rc::new(State {
            packets: RefCell::new(Packets::new(Arc::clone(&self.emulation.net))),
            devices: self.devices,
            shaping: self.shaping,
            news: Notify::new(),
            failure: Cell::new(None),
            refused: Cell::new(0),
        });
        let tasks = LocalSet::new();
        for endpoint in 0..state.devices.len() {
            tasks.spawn_local(Rc::clone(&state).read(endpoint));
        }
        stopped(tasks.run_until(state.deliver(timer)).await)
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("emulation", &self.emulation)
            .field("devices", &self.devices.len())
            .finish_non_exhaustive()
    }
}

// === impl SwitchShaping ===

impl SwitchShaping {
    const FULL: u8 = 0;
    const QUIET: u8 = 1;
    const BARE: u8 = 2;

    /// Everything that the topology says.
    pub fn full(&self) {
        self.0.store(Self::FULL, Ordering::Relaxed);
    }

    /// The same without jitter and loss: for probes of latency and rate.
    pub fn quiet(&self) {
        self.0.store(Self::QUIET, Ordering::Relaxed);
    }

    /// Nothing: for probes of the machine below.
    pub fn bare(&self) {
        self.0.store(Self::BARE, Ordering::Relaxed);
    }

    fn now(&self) -> Shaping {
        match self.0.load(Ordering::Relaxed) {
            Self::QUIET => Shaping::Quiet,
            Self::BARE => Shaping::Bare,
            _ => Shaping::Full,
        }
    }
}

// === impl State ===

impl State {
    /// Takes what `endpoint` sends, for ever.
    async fn read(self: Rc<Self>, endpoint: usize) {
        let mut packet = vec![0; usize::from(MTU)];
        while let Some(device) = self.devices.get(endpoint) {
            match device.recv(&mut packet).await {
                Ok(len) => self.take(endpoint as u32, packet.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure.set(Some(error));
                    self.news.notify_one();
                    return;
                }
            }
        }
    }

    fn take(&self, from: u32, packet: &[u8]) {
        // Neighbour and router discovery of IPv6, and broadcasts, are for nobody here.
        let to = destination(packet).filter(|to| (*to as usize) < self.devices.len());
        let Some(to) = to else {
            return;
        };
        let mut packets = self.packets.borrow_mut();
        let before = packets.next_ns();
        packets.push(
            monotonic_ns(),
            from,
            to,
            packet.to_vec(),
            self.shaping.now(),
        );
        let after = packets.next_ns();
        drop(packets);
        // A busy reader does not let the other task in for long.
        self.hand_on();
        if after < before || before.is_none() {
            self.news.notify_one();
        }
    }

    /// Waits for the moments of packets, for ever.
    async fn deliver(&self, mut timer: Timer) -> io::Error {
        loop {
            if let Some(error) = self.failure.take() {
                return error;
            }
            self.hand_on();
            let next_ns = self.packets.borrow().next_ns();
            let moment = async {
                match next_ns {
                    Some(next_ns) => timer.until(next_ns).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = moment => {}
                () = self.news.notified() => {}
            }
        }
    }

    /// Gives the endpoints what is there.
    fn hand_on(&self) {
        loop {
            let due = self.packets.borrow_mut().pop_due(monotonic_ns());
            let Some((to, packet)) = due else {
                return;
            };
            let sent = self.devices.get(to as usize).map(|to| to.try_send(&packet));
            if let Some(Err(error)) = sent {
                // TCP sends it again, as after any loss.
                let refused = self.refused.get() + 1;
                self.refused.set(refused);
                tracing::debug!(%error, to, refused, "a device took no packet");
            }
        }
    }
}

/// The endpoint that an IPv4 packet is for.
fn destination(packet: &[u8]) -> Option<u32> {
    let header = packet.get(..IPV4_HEADER)?;
    let [a, b, high, low] = *header[DESTINATION..].first_chunk()?;
    let is_ours = header[0] >> 4 == 4 && [a, b] == NETWORK;
    let host = u32::from(u16::from_be_bytes([high, low]));
    is_ours.then(|| host.checked_sub(1))?
}
