//! The routing tables of an answer, as its client reads them.

use expertmesh_routing::{Fate, Route};
use expertmesh_wire::v1;

/// What a [`v1::Routing`] carries, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingTables {
    /// The gate's choices; of the slots, where it mixes tokens into slots.
    pub route: Route,
    /// `[choices]` what became of each.
    pub fates: Vec<Fate>,
    /// `[choices]` the expert that computed each, `None` where none did.
    pub executed: Vec<Option<u32>>,
    /// `[choices]` what each result was multiplied by.
    pub combine_weights: Vec<f32>,
    /// How tokens were mixed into slots, by a gate that does.
    pub slots: Option<SlotTables>,
}

/// The two matrices of a gate that mixes tokens into slots.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotTables {
    /// Slots of a sequence.
    pub slots: usize,
    /// `[tokens, slots]`: what each token gives to each slot.
    pub dispatch: Vec<f32>,
    /// `[tokens, slots]`: what each token takes from each slot.
    pub combine: Vec<f32>,
}

// === impl RoutingTables ===

impl RoutingTables {
    /// Reads the tables of a step of `tokens` tokens through a layer of `experts` experts, of
    /// which each token chooses `top_k`.
    ///
    /// # Errors
    /// Tables whose lengths contradict each other, named.
    pub fn read(
        routing: &v1::Routing,
        tokens: usize,
        top_k: usize,
        experts: usize,
    ) -> Result<Self, String> {
        let slots = SlotTables::read(routing, tokens)?;
        // Slots are routed instead of tokens, each to its one expert.
        let mut route = match slots {
            None => Self::choices(routing, tokens, top_k, experts)?,
            Some(_) => Self::choices(routing, routing.chosen_expert.len() / 4, 1, experts)?,
        };
        route.logits = floats("router_logits", &routing.router_logits)?;
        let executed = words("executed_expert", &routing.executed_expert)?;
        let combine_weights = match routing.combine_weight.is_empty() {
            true => route.weights.clone(),
            false => floats("combine_weight", &routing.combine_weight)?,
        };
        let choices = route.choices();
        let scores = if slots.is_some() { 0 } else { tokens * experts };
        for (name, held, expected) in [
            ("router_logits", route.logits.len(), scores),
            ("executed_expert", executed.len(), choices),
            ("combine_weight", combine_weights.len(), choices),
            ("fate", routing.fate.len(), choices),
        ] {
            entries(name, held, expected)?;
        }
        let fates = routing.fate.iter().map(|byte| Fate::try_from(*byte));
        let fates = fates.collect::<Result<Vec<_>, _>>();
        let executed = executed.into_iter();
        Ok(Self {
            route,
            fates: fates.map_err(|error| error.to_string())?,
            executed: executed
                .map(|one| (one != u32::MAX).then_some(one))
                .collect(),
            combine_weights,
            slots,
        })
    }

    /// The choices alone, with their weights and without logits; what else the tables hold is not
    /// looked at. Arguments as [`RoutingTables::read`]'s.
    ///
    /// # Errors
    /// As [`RoutingTables::read`].
    pub fn choices(
        routing: &v1::Routing,
        tokens: usize,
        top_k: usize,
        experts: usize,
    ) -> Result<Route, String> {
        let offsets = words("offsets", &routing.offsets)?;
        let choices = match offsets.last() {
            None => tokens * top_k,
            Some(last) => {
                entries("offsets", offsets.len(), tokens + 1)?;
                *last as usize
            }
        };
        let widest = offsets
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]));
        let widest = widest.max().map_or(top_k, |most| top_k.max(most as usize));
        let chosen = words("chosen_expert", &routing.chosen_expert)?;
        entries("chosen_expert", chosen.len(), choices)?;
        let weights = floats("gate_weight", &routing.gate_weight)?;
        entries("gate_weight", weights.len(), choices)?;
        let route = Route {
            tokens,
            top_k: widest,
            offsets: (!offsets.is_empty()).then_some(offsets),
            experts_total: experts,
            logits: Vec::new(),
            experts: chosen,
            weights,
            padding: None,
        };
        route.check().map_err(|error| error.to_string())?;
        Ok(route)
    }
}

// === impl SlotTables ===

impl SlotTables {
    fn read(routing: &v1::Routing, tokens: usize) -> Result<Option<Self>, String> {
        let dispatch = floats("slot_dispatch", &routing.slot_dispatch)?;
        let combine = floats("slot_combine", &routing.slot_combine)?;
        if dispatch.is_empty() && combine.is_empty() {
            return Ok(None);
        }
        let fits = tokens > 0 && dispatch.len().is_multiple_of(tokens);
        if !fits || combine.len() != dispatch.len() {
            return Err(format!(
                "`slot_dispatch` and `slot_combine` hold {} and {} entries, expected the same \
                 multiple of {tokens} tokens",
                dispatch.len(),
                combine.len()
            ));
        }
        Ok(Some(Self {
            slots: dispatch.len() / tokens,
            dispatch,
            combine,
        }))
    }
}

fn entries(name: &str, held: usize, expected: usize) -> Result<(), String> {
    match held == expected {
        true => Ok(()),
        false => Err(format!(
            "`{name}` holds {held} entries, expected {expected}"
        )),
    }
}

fn words(name: &str, bytes: &[u8]) -> Result<Vec<u32>, String> {
    let (words, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        return Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect());
    }
    let held = bytes.len();
    Err(format!(
        "`{name}` holds {held} bytes, expected whole words of 4"
    ))
}

fn floats(name: &str, bytes: &[u8]) -> Result<Vec<f32>, String> {
    Ok(words(name, bytes)?
        .into_iter()
        .map(f32::from_bits)
        .collect())
}
