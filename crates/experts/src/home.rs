//! What a token's home computes itself, beside the exchange.

use std::sync::Arc;

use expertmesh_kernels::{Format, decode_row, encode_row};

use crate::{Expert, ExpertError, Scratch, SharedExpert};

/// The shared expert and the free ones: those that no worker holds, because answering for them
/// costs less than sending a row.
#[derive(Clone, Default)]
pub struct HomeExperts {
    shared: Option<Arc<SharedExpert>>,
    /// Index of the first free expert.
    first: usize,
    free: Vec<Arc<dyn Expert>>,
}

/// Rows that a home computed for its tokens.
#[derive(Debug, Clone, Default)]
pub struct HomeRows {
    /// `[tokens, hidden]` of the shared expert, where there is one.
    pub shared: Option<Vec<f32>>,
    /// One row for each choice of a free expert, in the wire's format as all results are.
    pub own: Vec<u8>,
}

// === impl HomeExperts ===

impl HomeExperts {
    /// The shared expert, and the free ones from index `first` on.
    pub fn new(
        shared: Option<Arc<SharedExpert>>,
        first: usize,
        free: Vec<Arc<dyn Expert>>,
    ) -> Self {
        Self {
            shared,
            first,
            free,
        }
    }

    /// Number of free experts.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Whether there is nothing to compute for any token.
    pub fn is_empty(&self) -> bool {
        self.shared.is_none() && self.free.is_empty()
    }

    /// Computes both for the tokens whose rows are `x` `[tokens, hidden]`, as they came out of the
    /// wire's format `wire`. `own` lists (token, expert) of the choices of free experts.
    ///
    /// # Errors
    /// What the experts refuse, and [`ExpertError::NoSuchExpert`] for one that is not free.
    pub fn run(
        &self,
        x: &[f32],
        hidden: usize,
        wire: Format,
        own: impl ExactSizeIterator<Item = (u32, u32)>,
    ) -> Result<HomeRows, ExpertError> {
        let mut scratch = Scratch::default();
        let shared = match &self.shared {
            None => None,
            Some(expert) => {
                let mut rows = vec![0.0; x.len()];
                expert.forward(x, &mut rows, &mut scratch)?;
                Some(rows)
            }
        };
        let row_bytes = hidden * wire.bytes();
        let mut rows = vec![0; own.len() * row_bytes];
        let mut y = vec![0.0; hidden];
        for ((token, expert), slot) in own.zip(rows.chunks_exact_mut(row_bytes.max(1))) {
            let index = expert as usize;
            let free = index.checked_sub(self.first);
            let free = free.and_then(|at| self.free.get(at));
            let free = free.ok_or(ExpertError::NoSuchExpert {
                expert: index,
                experts: self.first + self.free.len(),
            })?;
            let token = token as usize;
            free.forward(
                &x[token * hidden..(token + 1) * hidden],
                &mut y,
                &mut scratch,
            )?;
            encode_row(wire, &y, slot);
        }
        Ok(HomeRows { shared, own: rows })
    }
}

/// Rows `[tokens, hidden]` as the wire's format leaves them, from encoded ones.
pub fn decode_rows(encoded: &[u8], hidden: usize, wire: Format) -> Vec<f32> {
    let row_bytes = (hidden * wire.bytes()).max(1);
    let mut x = vec![0.0; encoded.len() / row_bytes * hidden];
    for (row, bytes) in x
        .chunks_exact_mut(hidden.max(1))
        .zip(encoded.chunks_exact(row_bytes))
    {
        decode_row(wire, bytes, row);
    }
    x
}
