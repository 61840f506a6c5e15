//! QUIC server ids, by which a Network Load Balancer finds the target of a connection.

use std::{fmt, str::FromStr};

use k8s_openapi::ByteString;
use serde::{Serialize, Serializer};

/// The number of bytes of a server id (`QuicServerId` of ELB v2: `0x` and sixteen digits).
const LENGTH: usize = 8;

/// The id that a server writes into its connection ids. AWS wants it to be unique behind a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicServerId(u64);

impl QuicServerId {
    /// Returns the id with these bytes, the highest first.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the id as an environment variable of a container has it: eight bytes in base64.
    #[must_use]
    pub fn to_base64(self) -> String {
        let encoded = serde_json::to_value(ByteString(self.0.to_be_bytes().to_vec()));
        encoded.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Reads the value of an environment variable; `None` if it is not eight bytes in base64.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        // Most environment variables end here.
        if text.len() != LENGTH.div_ceil(3) * 4 {
            return None;
        }
        let ByteString(bytes) = serde_json::from_value(text.into()).ok()?;
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

/// AWS's form: `0x` and sixteen digits, with lower-case letters.
impl fmt::Display for QuicServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.0)
    }
}

/// A text that is not the server id of a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a QUIC server id; one is 0x and 16 hexadecimal digits")]
pub struct InvalidQuicServerId(String);

impl FromStr for QuicServerId {
    type Err = InvalidQuicServerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 2 * LENGTH && !digits.starts_with('+'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or_else(|| InvalidQuicServerId(text.to_owned()))
    }
}

impl Serialize for QuicServerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_pods_and_of_aws() {
        for (number, of_pods, of_aws) in [
            (0, "AAAAAAAAAAA=", "0x0000000000000000"),
            (0x0123_4567_89ab_cdef, "ASNFZ4mrze8=", "0x0123456789abcdef"),
            (u64::MAX, "//////////8=", "0xffffffffffffffff"),
        ] {
            let id = QuicServerId::new(number);
            assert_eq!((id.to_base64().as_str(), id.to_string().as_str()), (of_pods, of_aws));
            assert_eq!((QuicServerId::from_base64(of_pods), of_aws.parse()), (Some(id), Ok(id)));
        }
    }

    #[test]
    fn what_is_not_a_server_id() {
        // Seven and nine bytes, the other alphabet, no padding, a blank, words.
        for text in [
            "",
            "AAAAAAAAAA==",
            "AAAAAAAAAAAA",
            "_________-8=",
            "AAAAAAAAAAA",
            " AAAAAAAAAA=",
            "production1!",
            "twelve-chars",
        ] {
            assert_eq!(QuicServerId::from_base64(text), None, "{text}");
        }
        for text in [
            "",
            "0x",
            "0123456789abcdef",
            "0x0123456789abcde",
            "0x0123456789abcdef0",
            "0x+123456789abcdef",
            "0xg123456789abcdef",
        ] {
            assert_eq!(text.parse::<QuicServerId>(), Err(InvalidQuicServerId(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ids_are_read_back(number in any::<u64>()) {
            let id = QuicServerId::new(number);
            prop_assert_eq!(QuicServerId::from_base64(&id.to_base64()), Some(id));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (QuicServerId::from_base64(&text), text.parse::<QuicServerId>());
        }
    }
}
