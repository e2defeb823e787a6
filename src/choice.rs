//! The names of a few choices, and their other names, flow in; an enum of them that reads and writes these names, and says which one is nearest to a wrong one, flows out.

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// The names, as they are written and reported.
            pub const VALUES: &'static [&'static str] = &[$($text),+];

            /// The name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The choice that `text` names, in letters of any case, or an error about `option`.
            pub(crate) fn parse(option: &str, text: &str) -> $crate::Result<Self> {
                match text.to_ascii_lowercase().as_str() {
                    $($text $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err($crate::Error::option(
                        option,
                        format!(
                            "'{text}' is not a choice{}",
                            $crate::error::nearest_hint(text, Self::VALUES.iter().copied())
                        ),
                    )),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use choice;
