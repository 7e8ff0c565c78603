//! Enumerations of configuration: by name or by number, as protobuf JSON has them.
//!
//! An unknown value is an error that lists the names that are allowed.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Name, number and value of each member.
pub(crate) type Table<T> = &'static [(&'static str, i64, T)];

/// Reads a member of `table`.
pub(crate) fn deserialize<'de, T: Copy + 'static, D: Deserializer<'de>>(
    input: D,
    table: Table<T>,
) -> Result<T, D::Error> {
    input.deserialize_any(Member(table))
}

struct Member<T: 'static>(Table<T>);

impl<T: Copy> Member<T> {
    fn by_number<E: Error>(&self, number: i64) -> Result<T, E> {
        let found = self.0.iter().find(|(_, known, _)| *known == number);
        found.map(|row| row.2).ok_or_else(|| self.unknown(&number.to_string()))
    }

    fn unknown<E: Error>(&self, given: &str) -> E {
        let names: Vec<&str> = self.0.iter().map(|row| row.0).collect();
        E::custom(format!("unknown value `{given}`, expected one of {}", names.join(", ")))
    }
}

impl<T: Copy> Visitor<'_> for Member<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|row| row.0).collect();
        write!(out, "one of {}", names.join(", "))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        let found = self.0.iter().find(|(known, _, _)| *known == name);
        found.map(|row| row.2).ok_or_else(|| self.unknown(name))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.by_number(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        i64::try_from(number)
            .map_err(|_| self.unknown(&number.to_string()))
            .and_then(|number| self.by_number(number))
    }
}

/// Defines an enumeration whose first member is the default.
macro_rules! proto_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $(#[$first_meta:meta])* $first:ident = $first_text:literal / $first_number:literal,
            $($(#[$member_meta:meta])* $member:ident = $text:literal / $number:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name {
            $(#[$first_meta])* #[default] $first,
            $($(#[$member_meta])* $member,)*
        }

        impl $name {
            const TABLE: $crate::proto_enum::Table<Self> = &[
                ($first_text, $first_number, Self::$first),
                $(($text, $number, Self::$member),)*
            ];

            /// The name in configuration.
            #[must_use]
            $vis fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$member => $text,)*
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                $crate::proto_enum::deserialize(input, Self::TABLE)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                output.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use proto_enum;

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    proto_enum! {
        /// For the tests below.
        enum Colour {
            /// Zero.
            Unset = "UNSET" / 0,
            /// Two.
            Red = "RED" / 2,
        }
    }

    #[test]
    fn names_and_numbers_are_read() {
        assert_eq!(from_value::<Colour>(json!("RED")).unwrap(), Colour::Red);
        assert_eq!(from_value::<Colour>(json!(2)).unwrap(), Colour::Red);
        assert_eq!(Colour::default(), Colour::Unset);
        assert_eq!(Colour::Red.as_str(), "RED");
    }

    #[test]
    fn unknown_values_list_what_is_allowed() {
        for value in [json!("red"), json!(1), json!(-1), json!(u64::MAX)] {
            let error = from_value::<Colour>(value).unwrap_err().to_string();
            assert!(error.contains("expected one of UNSET, RED"), "{error}");
        }
        assert!(from_value::<Colour>(json!(true)).is_err());
    }
}
