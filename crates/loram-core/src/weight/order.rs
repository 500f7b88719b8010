//! The order in which the rows of a weight are stored.

/// In which order the rows of a weight are stored. Readers see them as they are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// As they are numbered.
    #[default]
    Plain,
    /// In each head of so many rows, an even number, a row of the first half is followed by its partner of the second half. GGUF
    /// files of Llama hold the rows of queries and keys so: their rotary embedding turns neighbours.
    Interleaved {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The place of a row among the stored rows.
    pub fn place(self, row: usize) -> usize {
        match self {
            RowOrder::Plain => row,
            RowOrder::Interleaved { head_dim } => {
                let (head, row, half) = (row / head_dim, row % head_dim, head_dim / 2);
                head * head_dim + row % half * 2 + row / half
            }
        }
    }

    /// True where `rows` rows can be in this order.
    pub fn fits(self, rows: usize) -> bool {
        match self {
            RowOrder::Plain => true,
            RowOrder::Interleaved { head_dim } => {
                head_dim >= 2 && head_dim.is_multiple_of(2) && rows.is_multiple_of(head_dim)
            }
        }
    }
}
