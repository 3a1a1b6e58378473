//! Enums that the database and the API have as words.

/// An enum that is stored as words. Statements bind it; where a bound value will not do (an index on some of the rows is
/// used by statements of the same text, `WHERE state = 'waiting'`), the word comes from here: no statement spells one.
pub(in crate::server::store) trait Word: Copy + 'static {
    /// All variants, in their order.
    const ALL: &'static [Self];

    /// The word as SQL has it, with its quotes.
    fn literal(self) -> &'static str;
}

/// The words of the variants that `is_one` holds of, as they stand inside `IN (...)`.
pub(in crate::server::store) fn literals<W: Word>(is_one: impl Fn(W) -> bool) -> String {
    W::ALL.iter().filter(|word| is_one(**word)).map(|word| word.literal()).collect::<Vec<_>>().join(", ")
}

/// Defines an enum whose variants are stored, printed and serialised as fixed words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The word that the API and the database use.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl $crate::server::store::words::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn literal(self) -> &'static str {
                match self { $(Self::$variant => concat!("'", $word, "'"),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl rusqlite::types::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(rusqlite::types::ToSqlOutput::from(self.as_str()))
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                Self::parse(value.as_str()?).ok_or(rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}

pub(in crate::server::store) use words;
