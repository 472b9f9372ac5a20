//! A set of small numbers that needs no memory of its own for the first 128.

/// Which fields or oneofs of one message were seen.
#[derive(Default)]
pub(crate) struct Bits {
    low: u128,
    high: Vec<u64>,
}

impl Bits {
    /// Puts `n` in; false if it was there.
    pub(crate) fn insert(&mut self, n: usize) -> bool {
        let new = !self.contains(n);
        if n < 128 {
            self.low |= 1 << n;
        } else {
            let (word, bit) = ((n - 128) / 64, n % 64);
            if self.high.len() <= word {
                self.high.resize(word + 1, 0);
            }
            self.high[word] |= 1 << bit;
        }
        new
    }

    /// Whether `n` is in.
    pub(crate) fn contains(&self, n: usize) -> bool {
        if n < 128 {
            return self.low >> n & 1 == 1;
        }
        self.high.get((n - 128) / 64).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn each_number_is_new_once() {
        let mut bits = Bits::default();
        for n in [0, 1, 63, 64, 127, 128, 191, 192, 1000] {
            assert!(!bits.contains(n) && bits.insert(n), "{n}");
        }
        for n in [0, 1, 63, 64, 127, 128, 191, 192, 1000] {
            assert!(bits.contains(n) && !bits.insert(n), "{n}");
        }
        assert!(!bits.contains(2) && !bits.contains(129) && !bits.contains(100_000));
    }
}
