//! Reads what a result needs of the provider's JSON. Nothing fails: a result must not fail on what it cannot read.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer as _, Visitor};
use serde_json::value::RawValue;

/// The members of a JSON object, each as it stands.
pub(crate) struct Object<'a>(HashMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    /// Reads an object in UTF-8; of anything else it has no members.
    pub(crate) fn read(json: &'a [u8]) -> Self {
        Self(serde_json::from_slice(json).unwrap_or_default())
    }

    /// A member byte for byte.
    pub(crate) fn verbatim(&self, name: &str) -> Option<&'a [u8]> {
        self.0.get(name).map(|value| value.get().as_bytes())
    }

    /// A member that is an object; without members when it is none.
    pub(crate) fn object(&self, name: &str) -> Object<'a> {
        Object::read(self.verbatim(name).unwrap_or_default())
    }

    /// The objects of a member that is a list; none when it is none.
    pub(crate) fn objects(&self, name: &str) -> Vec<Object<'a>> {
        let json = self.verbatim(name).unwrap_or_default();
        let values: Vec<&RawValue> = serde_json::from_slice(json).unwrap_or_default();
        values.into_iter().map(|value| Object::read(value.get().as_bytes())).collect()
    }

    /// A member that is a string; blank when it is none.
    pub(crate) fn text(&self, name: &str) -> String {
        self.0.get(name).and_then(|value| text(value.get())).unwrap_or_default()
    }
}

fn text(json: &str) -> Option<String> {
    if !json.starts_with('"') {
        return None;
    }
    // As bytes, because a String refuses half of a surrogate pair, which is what a model's cut emoji is.
    let mut reader = serde_json::Deserializer::from_str(json);
    reader.deserialize_bytes(Lenient).ok()
}

struct Lenient;

impl Visitor<'_> for Lenient {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            // Half of a pair comes as three bytes that are not UTF-8, one chunk each: the first is always 0xED.
            if chunk.invalid().first() == Some(&0xED) {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Object;

    #[test]
    fn members_are_verbatim_and_texts_are_read_whatever_they_hold() {
        let read = Object::read(
            br#"{ "item" : {"a":  1.0e5, "b":9007199254740993}, "t":"\ud83e\udd86 \ud83e.\udd86", "n":1}"#,
        );

        assert_eq!(read.verbatim("item"), Some(br#"{"a":  1.0e5, "b":9007199254740993}"#.as_slice()));
        assert_eq!(read.text("t"), "🦆 \u{FFFD}.\u{FFFD}");
        assert_eq!(read.text("n"), "");
        assert_eq!(read.text("missing"), "");
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for json in [&b"[1]"[..], b"", b"{\"a\":", b"\xff", b"null"] {
            assert!(Object::read(json).0.is_empty());
        }
    }
}
