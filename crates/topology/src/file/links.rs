//! `[tier.*]` and `[[override]]`.

use serde::Deserialize;
use toml::Spanned;

use crate::error::TopologyError;
use crate::file::cells::{Cell, Reader};
use crate::model::{Link, LinkOverride, Spine, Tiers, Uplink};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierText {
    host: Option<Spanned<LinkText>>,
    rack: Option<Spanned<LinkText>>,
    spine: Option<Spanned<SpineText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkText {
    latency: Cell,
    bandwidth: Cell,
    jitter: Cell,
    loss: Cell,
    per_message: Cell,
    per_peer: Cell,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpineText {
    latency: Cell,
    uplink: Cell,
    oversubscription: Cell,
    jitter: Cell,
    loss: Cell,
    per_message: Cell,
    per_peer: Cell,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverrideText {
    from: Cell,
    to: Cell,
    one_way: Cell,
    latency: Cell,
    bandwidth: Cell,
    jitter: Cell,
    loss: Cell,
    per_message: Cell,
}

/// What endpoints of one host have where the file does not say: between two processes of a machine
/// with 2 cores of a Zen 4, a small message takes 16 to 40 µs and a 1 MiB round trip 0.7 to 0.9 ms
/// (`benches/echo.rs` of transport), which is 1 GB/s and more.
const USUAL_HOST: Link = Link {
    latency_ns: 30_000,
    bytes_per_ns: 1.0,
    jitter_ns: 0,
    loss: 0.0,
    per_message_ns: 0,
    per_peer_ns: 0,
};

// === impl TierText ===

impl TierText {
    /// Where `[tier.spine]` is.
    pub(super) fn spine_at(&self) -> Option<usize> {
        Some(self.spine.as_ref()?.span().start)
    }
}

pub(super) fn tiers(
    reader: &Reader<'_>,
    text: Option<&TierText>,
    is_alone: bool,
) -> Result<Tiers, TopologyError> {
    let host = text.and_then(|text| text.host.as_ref());
    let rack = text.and_then(|text| text.rack.as_ref());
    let spine = text.and_then(|text| text.spine.as_ref());
    let host_is_usual = host.is_none();
    let host = match host {
        Some(text) => link(reader, "tier.host", text)?,
        None => USUAL_HOST,
    };
    let rack = match rack {
        Some(text) => link(reader, "tier.rack", text)?,
        // Nothing travels between hosts where there is one.
        None if is_alone => USUAL_HOST,
        None => {
            let expected = "a table with `latency` and `bandwidth`, the link between two hosts";
            return Err(reader.field(0, "tier.rack", "is missing", expected));
        }
    };
    let spine = spine.map(|text| read_spine(reader, text)).transpose()?;
    Ok(Tiers {
        host,
        host_is_usual,
        rack,
        spine,
    })
}

fn link(reader: &Reader<'_>, tier: &str, text: &Spanned<LinkText>) -> Result<Link, TopologyError> {
    let (at, link) = (text.span().start, text.get_ref());
    let name = |field: &str| format!("{tier}.{field}");
    let required =
        |field: &str, expected: &str| reader.field(at, &name(field), "is missing", expected);
    Ok(Link {
        latency_ns: reader
            .time(&name("latency"), &link.latency)?
            .ok_or_else(|| required("latency", crate::units::TIME))?,
        bytes_per_ns: reader
            .rate(&name("bandwidth"), &link.bandwidth)?
            .ok_or_else(|| required("bandwidth", crate::units::RATE))?,
        jitter_ns: reader.time(&name("jitter"), &link.jitter)?.unwrap_or(0),
        loss: reader.share(&name("loss"), &link.loss)?.unwrap_or(0.0),
        per_message_ns: reader
            .time(&name("per_message"), &link.per_message)?
            .unwrap_or(0),
        per_peer_ns: reader.time(&name("per_peer"), &link.per_peer)?.unwrap_or(0),
    })
}

fn read_spine(reader: &Reader<'_>, text: &Spanned<SpineText>) -> Result<Spine, TopologyError> {
    let (at, spine) = (text.span().start, text.get_ref());
    let factor = reader.number("tier.spine.oversubscription", &spine.oversubscription)?;
    let uplink = match (reader.rate("tier.spine.uplink", &spine.uplink)?, factor) {
        (Some(rate), None) => Uplink::Rate(rate),
        (None, Some(factor)) if (0.001..=1e6).contains(&factor) => Uplink::Oversubscription(factor),
        (None, Some(factor)) => {
            let held = format!("holds {factor}");
            let expected = "0.001 to 1000000: the rack's ports divided by its uplink";
            return Err(reader.field(at, "tier.spine.oversubscription", &held, expected));
        }
        (given, _) => {
            let held = match given {
                Some(_) => "stands beside `oversubscription`",
                None => "is missing",
            };
            let expected = "either `uplink`, the rate of a rack's uplink, or `oversubscription`";
            return Err(reader.field(at, "tier.spine.uplink", held, expected));
        }
    };
    let rate = match uplink {
        Uplink::Rate(rate) => rate,
        Uplink::Oversubscription(_) => f64::INFINITY,
    };
    let latency = reader.time("tier.spine.latency", &spine.latency)?;
    let time = |field: &str, cell: &Cell| reader.time(field, cell).map(Option::unwrap_or_default);
    let link = Link {
        latency_ns: latency.ok_or_else(|| {
            reader.field(at, "tier.spine.latency", "is missing", crate::units::TIME)
        })?,
        bytes_per_ns: rate,
        jitter_ns: time("tier.spine.jitter", &spine.jitter)?,
        loss: reader.share("tier.spine.loss", &spine.loss)?.unwrap_or(0.0),
        per_message_ns: time("tier.spine.per_message", &spine.per_message)?,
        per_peer_ns: time("tier.spine.per_peer", &spine.per_peer)?,
    };
    Ok(Spine { link, uplink })
}

pub(super) fn overrides(
    reader: &Reader<'_>,
    texts: &[Spanned<OverrideText>],
) -> Result<Vec<LinkOverride>, TopologyError> {
    texts
        .iter()
        .map(|text| read_override(reader, text))
        .collect()
}

fn read_override(
    reader: &Reader<'_>,
    text: &Spanned<OverrideText>,
) -> Result<LinkOverride, TopologyError> {
    let (at, own) = (text.span().start, text.get_ref());
    let missing = |field: &str| reader.field(at, field, "is missing", "a host or \"*\"");
    let from = reader.text_of("override.from", &own.from)?;
    let to = reader.text_of("override.to", &own.to)?;
    let own = LinkOverride {
        from: from.ok_or_else(|| missing("override.from"))?,
        to: to.ok_or_else(|| missing("override.to"))?,
        one_way: reader
            .flag("override.one_way", &own.one_way)?
            .unwrap_or(false),
        latency_ns: reader.time("override.latency", &own.latency)?,
        bytes_per_ns: reader.rate("override.bandwidth", &own.bandwidth)?,
        jitter_ns: reader.time("override.jitter", &own.jitter)?,
        loss: reader.share("override.loss", &own.loss)?,
        per_message_ns: reader.time("override.per_message", &own.per_message)?,
        line: reader.line(at),
    };
    if own.from == own.to {
        let held = format!("holds \"{}\" at both ends", own.to);
        let expected =
            "two hosts; links inside of hosts are [tier.host], between all hosts [tier.rack]";
        return Err(reader.field(at, "override.to", &held, expected));
    }
    let times = [own.latency_ns, own.jitter_ns, own.per_message_ns];
    let differs =
        times.iter().any(Option::is_some) || own.bytes_per_ns.is_some() || own.loss.is_some();
    if !differs {
        let expected = "at least one of latency, bandwidth, jitter, loss, per_message";
        return Err(reader.field(at, "override", "changes nothing", expected));
    }
    Ok(own)
}
