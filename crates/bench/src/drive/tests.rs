use std::time::Duration;

use expertmesh_telemetry::ExchangeKind;
use expertmesh_wire::format_to_wire;

use super::*;

fn cluster(dtype: Format, wire: Format) -> v1::ClusterReply {
    let endpoint = |id: u32, name: &str| v1::Endpoint {
        id,
        name: name.to_owned(),
        address: String::new(),
    };
    v1::ClusterReply {
        endpoints: vec![endpoint(0, "coordinator"), endpoint(1, "worker-0")],
        exchange: v1::ExchangeKind::Star.into(),
        model: Some(v1::ModelSource {
            source: None,
            dtype: format_to_wire(dtype).into(),
        }),
        placement_digest: "ab".to_owned(),
        wire_dtype: format_to_wire(wire).into(),
        numerics: "fma-chain/2".to_owned(),
        hidden: 1,
        experts: 2,
        top_k: 1,
        ..v1::ClusterReply::default()
    }
}

/// The answer to a step of one token with the output `value`, chosen by `expert` of two.
fn reply(value: f32, expert: usize) -> v1::ForwardReply {
    let mut per_expert = vec![v1::ExpertOverflow::default(); 2];
    per_expert[expert].assigned = 1;
    per_expert[expert].computed = 1;
    let link = v1::LinkBytes {
        source: 0,
        destination: 1,
        messages: 1,
        rows: 1,
        bytes: 100,
    };
    v1::ForwardReply {
        output: value.to_le_bytes().to_vec().into(),
        routing: None,
        report: Some(v1::StepReport {
            step_ns: 1000,
            exchange_ns: 900,
            traffic: vec![link],
            overflow: Some(v1::Overflow {
                per_expert,
                ..v1::Overflow::default()
            }),
            choices_per_endpoint: vec![1],
            ..v1::StepReport::default()
        }),
    }
}

fn links(message_bytes: u64, wire_bytes: u64) -> v1::TrafficReply {
    v1::TrafficReply {
        links: vec![v1::LinkTraffic {
            source: 0,
            destination: 1,
            messages: 1,
            message_bytes,
            wire_bytes,
        }],
    }
}

fn run_of(meter: Meter, cluster: &v1::ClusterReply) -> Run {
    let identity = identity(cluster, 7, "synthetic", None, "balanced").unwrap();
    meter.finish(identity, 3)
}

#[test]
fn answers_add_up_to_a_run() {
    let cluster = cluster(Format::F32, Format::F32);
    let mut meter = Meter::new(&cluster);
    for (value, expert) in [(1.0, 0), (2.0, 1), (3.0, 1)] {
        let reply = reply(value, expert);
        meter.record(&reply, Duration::from_millis(500)).unwrap();
    }
    meter.wire(&links(1000, 5000), &links(1300, 5420));
    let skew = meter.skew(None);
    assert_eq!(
        skew.to_string(),
        "max/mean 1.33, hottest expert 66.7 % of the choices"
    );
    let run = run_of(meter, &cluster);
    assert_eq!(run.load.achieved_per_s, Some(2.0));
    assert_eq!((run.load.steps, run.load.warmup_steps), (3, 3));
    assert_eq!(run.overflow.computed, 3);
    assert_eq!(run.communication.payload_bytes, 300);
    assert_eq!(run.communication.wire_bytes, Some(420));
    assert_eq!(run.identity.exchange, ExchangeKind::Star);
    // printf '\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40' | sha256sum
    let digest = "8e628779e6a74ee0b36991c10158f63cafec7d340ad4e075592502c8708524dd";
    assert_eq!(run.digest.as_deref(), Some(digest));
}

#[test]
fn wire_bytes_that_another_client_shares_are_not_told() {
    let cluster = cluster(Format::F32, Format::F32);
    let mut meter = Meter::new(&cluster);
    meter.record(&reply(1.0, 0), Duration::ZERO).unwrap();
    meter.wire(&links(0, 0), &links(200, 260));
    assert_eq!(run_of(meter, &cluster).communication.wire_bytes, None);
}

#[test]
fn a_run_without_steps_has_no_digest() {
    let cluster = cluster(Format::F32, Format::F32);
    assert_eq!(run_of(Meter::new(&cluster), &cluster).digest, None);
}

#[test]
fn answers_that_contradict_themselves_are_refused_by_field() {
    let cluster = cluster(Format::F32, Format::F32);
    let refused = |change: fn(&mut v1::StepReport)| {
        let mut reply = reply(1.0, 0);
        change(reply.report.as_mut().unwrap());
        let error = Meter::new(&cluster).record(&reply, Duration::ZERO);
        error.unwrap_err().to_string()
    };
    assert!(refused(|report| report.overflow = None).contains("`report.overflow` is missing"));
    let error = refused(|report| {
        report.overflow.as_mut().unwrap().per_expert.pop();
    });
    assert!(error.contains("holds 1 experts, expected 2"), "{error}");
    let error = refused(|report| report.overflow.as_mut().unwrap().per_expert[0].lost = 1);
    assert!(error.contains("per_expert[0]"), "{error}");
    let mut without = reply(1.0, 0);
    without.report = None;
    let error = Meter::new(&cluster).record(&without, Duration::ZERO);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("`report` is missing")
    );
}

#[test]
fn the_numerics_of_a_run_name_a_narrower_wire() {
    let numerics = |dtype, wire| {
        let cluster = cluster(dtype, wire);
        identity(&cluster, 0, "m", None, "w").unwrap().numerics
    };
    assert_eq!(numerics(Format::F32, Format::F32), "fma-chain/2 f32");
    assert_eq!(numerics(Format::Bf16, Format::Bf16), "fma-chain/2 bf16");
    let narrower = "fma-chain/2 f32, bf16 on the wire";
    assert_eq!(numerics(Format::F32, Format::Bf16), narrower);
}

#[test]
fn a_bf16_model_is_sent_bf16_rows() {
    let sent = |dtype| {
        let cluster = cluster(dtype, Format::F32);
        let request = forward_request(&cluster, 1, &mut [1.001], Some(&[true]), false);
        assert_eq!(request.padding_mask.to_vec(), [1]);
        f32::from_le_bytes(request.hidden_states.to_vec().try_into().unwrap())
    };
    assert_eq!(sent(Format::F32), 1.001);
    assert_eq!(sent(Format::Bf16), 1.0);
}

/// The answer to a step with these tables.
fn routed(experts: &[u32], weights: &[f32], offsets: &[u32]) -> v1::ForwardReply {
    v1::ForwardReply {
        routing: Some(v1::Routing {
            chosen_expert: words(experts.iter().copied()),
            gate_weight: words(weights.iter().map(|weight| weight.to_bits())),
            offsets: words(offsets.iter().copied()),
            ..v1::Routing::default()
        }),
        ..v1::ForwardReply::default()
    }
}

const fn batch(tokens: usize, padding: Option<&[bool]>) -> Batch<'_> {
    Batch {
        tokens,
        padding,
        replay: None,
    }
}

#[test]
fn routes_become_a_trace_and_padding_has_none() {
    let cluster = cluster(Format::F32, Format::F32);
    let mut log = RouteLog::new(&cluster).unwrap();
    let fixed = routed(&[1, 0, 1], &[0.5, 0.25, 1.0], &[]);
    let padding = [false, true, false];
    log.record(&fixed, &batch(3, Some(&padding))).unwrap();
    // The second token of this step chose twice, the first not at all.
    let ragged = routed(&[1, 0, 0], &[0.5, 0.25, 1.0], &[0, 0, 2, 3]);
    log.record(&ragged, &batch(3, None)).unwrap();
    let trace = log.finish("a test", Some(4)).unwrap();
    let header = trace.header();
    assert_eq!((header.experts, header.top_k, header.layers), (2, 2, 1));
    assert_eq!((header.source.as_str(), header.seed), ("a test", Some(4)));
    let none = crate::trace::NO_CHOICE;
    let [first, second] = trace.records() else {
        panic!("{trace:?}");
    };
    assert_eq!((first.step, second.step), (0, 1));
    assert_eq!(first.experts, [1, none, none, none, 1, none]);
    let weights = first.weights.as_deref().unwrap();
    assert_eq!(weights, [0.5, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(second.experts, [none, none, 1, 0, 0, none]);
}

#[test]
fn routes_that_contradict_themselves_are_refused_by_field() {
    let cluster = cluster(Format::F32, Format::F32);
    let refused = |reply: &v1::ForwardReply| {
        let error = RouteLog::new(&cluster)
            .unwrap()
            .record(reply, &batch(2, None));
        error.unwrap_err().to_string()
    };
    assert!(refused(&reply(1.0, 0)).contains("`routing` is missing"));
    for (experts, weights, offsets, said) in [
        (
            &[0][..],
            &[1.0, 1.0][..],
            &[][..],
            "`chosen_expert` holds 1 entries, expected 2",
        ),
        (
            &[0, 1],
            &[1.0],
            &[],
            "`gate_weight` holds 1 entries, expected 2",
        ),
        (
            &[0, 1],
            &[1.0, 1.0],
            &[0, 1],
            "`offsets` holds 2 entries, expected 3",
        ),
        (&[0], &[1.0], &[0, 2, 1], "rising"),
        // No expert may be beyond those of the cluster.
        (&[2, 1], &[1.0, 1.0], &[], "2"),
    ] {
        let error = refused(&routed(experts, weights, offsets));
        assert!(
            error.starts_with("answer of the coordinator: routing: "),
            "{error}"
        );
        assert!(error.contains(said), "{error}");
    }
    let soft = v1::ClusterReply {
        gate: "soft".to_owned(),
        ..cluster.clone()
    };
    let error = RouteLog::new(&soft).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("gate is soft"));
}
