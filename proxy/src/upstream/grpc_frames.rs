//! Counting gRPC messages in a body as it passes: each is a flag byte, a length of four bytes
//! and that many bytes (gRPC over HTTP/2, "Length-Prefixed-Message").

/// Where in a stream of messages the bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounter {
    /// Messages whose head was seen.
    pub messages: u64,
    header: [u8; 5],
    filled: usize,
    remaining: u64,
}

impl FrameCounter {
    /// Takes the next bytes of the body.
    pub fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.remaining > 0 {
                let here = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(data.len());
                self.remaining -= here as u64;
                data = data.get(here..).unwrap_or_default();
                continue;
            }
            let wanted = self.header.len() - self.filled;
            let here = wanted.min(data.len());
            let (head, rest) = data.split_at(here);
            if let Some(space) = self.header.get_mut(self.filled..self.filled + here) {
                space.copy_from_slice(head);
            }
            self.filled += here;
            data = rest;
            if self.filled == self.header.len() {
                let [_, a, b, c, d] = self.header;
                self.remaining = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.filled = 0;
                self.messages += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(lengths: &[u16]) -> Vec<u8> {
        let mut out = Vec::new();
        for length in lengths {
            out.push(0);
            out.extend(u32::from(*length).to_be_bytes());
            out.extend(std::iter::repeat_n(0xff, usize::from(*length)));
        }
        out
    }

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            lengths in prop::collection::vec(0_u16..300, 0..20),
            cut in 1_usize..97,
        ) {
            let mut counter = FrameCounter::default();
            for piece in stream(&lengths).chunks(cut) {
                counter.feed(piece);
            }
            prop_assert_eq!(counter.messages, lengths.len() as u64);
        }
    }
}
