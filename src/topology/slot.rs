//! The slot of a name in Redis Cluster: CRC16 of its hash tag, modulo 16,384. After the specification of Redis Cluster;
//! the CRC is the one called XMODEM.

/// How many slots there are.
pub const SLOTS: u16 = 16_384;

/// A part of a cluster's keys, all of which one node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// The slot of this number, below [`SLOTS`].
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// The slot of a name: that of its hash tag, which stands between its first `{` and the next `}`. A name has none
    /// where one of them is missing or nothing stands between: then the whole name counts.
    pub fn of(name: &[u8]) -> Self {
        let inner = name.iter().position(|byte| *byte == b'{').and_then(|open| name.get(open + 1..));
        let tag = inner.and_then(|inner| inner.get(..inner.iter().position(|byte| *byte == b'}')?));
        Self::of_tag(tag.filter(|tag| !tag.is_empty()).unwrap_or(name))
    }

    /// The slot of all names with this hash tag.
    pub fn of_tag(tag: &[u8]) -> Self {
        Self(crc16(tag) % SLOTS)
    }

    /// A tag of this slot, which is a key whose logs are in it: two bytes, of which none is a brace.
    pub fn a_tag(self) -> [u8; 2] {
        let is_brace = |byte: &u8| matches!(byte, b'{' | b'}');
        let mut tags = (0..=u16::MAX / SLOTS).map(|multiple| uncrc16(self.0 + multiple * SLOTS));
        tags.find(|tag| !tag.iter().any(is_brace)).unwrap_or_default()
    }

    /// Its number, below [`SLOTS`].
    pub fn number(self) -> u16 {
        self.0
    }
}

const POLYNOMIAL: u16 = 0x1021;

/// What each value of the upper byte does to the CRC.
const TABLE: [u16; 256] = table();

#[expect(clippy::indexing_slicing, reason = "it runs when this is compiled")]
const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let [upper, _] = crc.to_be_bytes();
        #[expect(clippy::indexing_slicing, reason = "there is an entry for each value of a byte")]
        let change = TABLE[usize::from(upper ^ byte)];
        crc << 8 ^ change
    })
}

/// The two bytes of which this is the CRC: each bit that came in is taken out again.
fn uncrc16(crc: u16) -> [u8; 2] {
    let bytes = (0..16).fold(crc, |crc, _| match crc & 1 {
        0 => crc >> 1,
        _ => (crc ^ POLYNOMIAL) >> 1 | 1 << 15,
    });
    bytes.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redis_protocol::redis_keyslot;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (name, alike) in [
            ("{user1000}.following", "user1000"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("rl:{user:{42}:60000", "user:{42"),
        ] {
            assert_eq!(Slot::of(name.as_bytes()), Slot::of_tag(alike.as_bytes()), "{name}");
        }
        for whole in ["", "foo", "foo{}{bar}", "foo{", "foo{bar", "}foo{", "}{"] {
            assert_eq!(Slot::of(whole.as_bytes()), Slot::of_tag(whole.as_bytes()), "{whole}");
        }
        assert_eq!(Slot::new(SLOTS - 1).map(Slot::number), Some(SLOTS - 1));
        assert_eq!(Slot::new(SLOTS), None);
    }

    #[test]
    fn each_slot_has_a_tag() {
        for slot in (0..SLOTS).filter_map(Slot::new) {
            assert_eq!(Slot::of(&[b"rl:{", &slot.a_tag()[..], b"}:1"].concat()), slot);
        }
    }

    proptest! {
        #[test]
        fn another_implementation_agrees(name in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), any::<u8>()], 0..40)) {
            prop_assert_eq!(Slot::of(&name).number(), redis_keyslot(&name));
        }
    }
}
