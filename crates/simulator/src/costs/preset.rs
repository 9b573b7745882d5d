//! Profiles of machines that are not at hand.

use std::collections::BTreeMap;

use expertmesh_telemetry::Source;

use super::{CombineCost, Costs, ExpertCosts, GateCost, Line};

/// Names that [`Costs::preset`] knows.
const NAMES: [&str; 3] = ["loopback", "h100", "h800"];

// === impl Costs ===

impl Costs {
    /// The profiles that come with this crate.
    pub fn preset_names() -> &'static [&'static str] {
        &NAMES
    }

    /// The profile of this name, `None` if there is none.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "loopback" => Some(Self::loopback()),
            "h100" | "h800" => Some(Self::gpu(name)),
            _ => None,
        }
    }

    /// Processes of this runtime on one machine of the kind that it was developed on: two cores
    /// of AMD Zen 4. Rough: `calibrate` measures the machine at hand.
    pub fn loopback() -> Self {
        Self {
            name: "loopback".into(),
            origin: "echo over gRPC and products on two cores of AMD Zen 4: 32 us a round trip of \
                     64 bytes with tonic and h2 in 8 to 12 us of CPU, copies at 10 GB/s, f32 \
                     products at 100 GFLOP/s a core"
                .into(),
            source: Source::Preset,
            on_cores: true,
            wake_ns: 6_000.0,
            pool_ns: 8_000.0,
            slice_ns: 3_000_000.0,
            timer_ns: 1_000_000.0,
            check: Line::new(200.0, 0.03),
            gate: GateCost {
                fixed_ns: 2_000.0,
                token_ns: 150.0,
                flop_ns: 0.02,
            },
            plan: Line::new(4_000.0, 40.0),
            shard_plan: Line::new(3_000.0, 40.0),
            pack: Line::new(1_000.0, 0.1),
            write: Line::new(6_000.0, 0.15),
            read: Line::new(6_000.0, 0.15),
            local: Line::new(1_000.0, 0.0),
            reply: Line::new(500.0, 0.0),
            combine: CombineCost {
                fixed_ns: 2_000.0,
                row_ns: 20.0,
                byte_ns: 0.1,
            },
            collect: Line::new(1_000.0, 0.2),
            experts: ExpertCosts {
                bandwidth_share: 0.8,
                batch_ns: 2_000.0,
                byte_ns: 0.1,
                tables: Vec::new(),
            },
            sources: BTreeMap::new(),
        }
    }

    /// Devices that trade rows themselves, as the low-latency kernels of DeepEP do: packing,
    /// sending and taking in are in the link's latency and per-message overhead, combining reads
    /// every result row once at the memory's rate. Peaks are those of the topology's devices.
    fn gpu(name: &str) -> Self {
        Self {
            name: name.into(),
            origin:
                "rooflines of the device; H100 SXM data sheet: memory at 3.35 TB/s; kernels of \
                     a few microseconds for gate and plan"
                    .into(),
            source: Source::Preset,
            on_cores: false,
            wake_ns: 0.0,
            pool_ns: 0.0,
            slice_ns: 3_000_000.0,
            timer_ns: 0.0,
            check: Line::default(),
            gate: GateCost {
                fixed_ns: 5_000.0,
                token_ns: 1.0,
                flop_ns: 2.5e-6,
            },
            plan: Line::new(5_000.0, 0.05),
            shard_plan: Line::default(),
            pack: Line::default(),
            write: Line::default(),
            read: Line::default(),
            local: Line::default(),
            reply: Line::default(),
            combine: CombineCost {
                fixed_ns: 0.0,
                row_ns: 0.0,
                byte_ns: 1.0 / (3_350.0 * 0.8),
            },
            collect: Line::default(),
            experts: ExpertCosts {
                bandwidth_share: 0.8,
                batch_ns: 0.0,
                byte_ns: 0.0,
                tables: Vec::new(),
            },
            sources: BTreeMap::new(),
        }
    }
}
