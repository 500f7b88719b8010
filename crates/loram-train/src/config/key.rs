//! A row of the key table, and the macro that turns the table into [`TrainConfig`](super::TrainConfig).

use super::types::{FlagForm, KeyType};
use serde_json::Value;

/// A key of the configuration: one row of the table.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name, as in transformers, PEFT or TRL.
    pub name: &'static str,
    /// Other accepted names.
    pub aliases: &'static [&'static str],
    /// Its section in the documentation.
    pub section: &'static str,
    /// The values that it takes, for messages.
    pub expected: String,
    /// The JSON Schema of its values, without its range.
    pub schema: Value,
    /// Its default; null where that depends on other keys (the help says how).
    pub default: Value,
    /// Its meaning, for help texts.
    pub help: String,
    /// How its flag takes a value.
    pub form: FlagForm,
    /// The value in the help text of its flag.
    pub placeholder: &'static str,
    /// Everything else that the program must know about it.
    pub marks: &'static [Mark],
}

/// A property of a key. What a part of the program needs to know about keys is a mark in the table, never a list of
/// names beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is a flag of `loram init`. (`loram train` has a flag for every key.)
    Init,
    /// It is a flag of `loram plan`.
    Plan,
    /// It is a flag of `loram info`.
    Info,
    /// It is a flag of `loram eval`.
    Eval,
    /// It is a flag of `loram predict`.
    Predict,
    /// It is a flag of `loram generate`.
    Generate,
    /// `-h` shows its flag; `--help` shows those of all keys.
    Common,
    /// Its flag is called by its first alias.
    AliasFlag,

    /// It may change when a run is resumed: it affects what is measured, saved or printed and where, or names a model or
    /// data, whose content is compared instead.
    Resumable,
    /// A comparison varies it by a list of values.
    Axis,
    /// Runs that differ in it are different arms of a report, although a resumed run may change it.
    Arm,
    /// It names the model or the data of a run, which a report lists apart from the settings.
    Input,
    /// It says where a run is written and what happens to an earlier one there. A comparison sets it.
    Folder,
    /// No figure of a comparison depends on it, so that runs which differ in it count as the same.
    Cosmetic,

    /// `adapter_config.json` has it with the same name and meaning.
    Peft,
    /// An adapter that is trained further (`adapter_name_or_path`) brings its own value.
    InAdapter,
    /// It concerns the factor A or B alone, so that full fine-tuning has no use for it.
    Factor,
    /// [`TrainConfig::rewritten`](super::TrainConfig::rewritten) accepts a value for it.
    Rewritable,

    /// It sets the loss of preferences, so that other tasks have no use for it.
    Preference,

    /// −1 means null, as in transformers.
    MinusOne,
}

impl Key {
    /// True if the row has this mark.
    pub fn is(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    /// True if two runs that differ in it are different arms of a report. What varies along an axis is a column or row of
    /// one arm.
    pub fn tells_arms_apart(&self) -> bool {
        !self.is(Mark::Axis) && (!self.is(Mark::Resumable) || self.is(Mark::Arm) || self.is(Mark::Input))
    }

    /// Its name, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The name of its flag without the dashes in front, `learning-rate`.
    pub fn flag(&self) -> String {
        let name = if self.is(Mark::AliasFlag) { self.aliases[0] } else { self.name };
        name.replace('_', "-")
    }
}

/// The values that a type takes; a range of the key takes the place of that of its type.
pub(super) fn expected<T: KeyType>(range: &[&str]) -> String {
    match range {
        [range] => format!("{} ({range})", T::expected().replace(", 0 or more", "")),
        _ => T::expected(),
    }
}

/// Makes [`TrainConfig`](super::TrainConfig), `table()`, and access by name out of rows of the form
///
/// ```text
/// /// The meaning of the key, for help texts.
/// name ["alias", …]: Type = default, if |x| check(x) => "what the check demands", as "PLACEHOLDER", [Mark …];
/// ```
///
/// of which everything after the default may be absent.
macro_rules! key_table {
    ($($section:literal { $(
        $(#[doc = $doc:literal])+
        $name:ident $([$($alias:literal),+])? : $type:ty = $default:expr
            $(, if |$x:ident| $check:expr => $range:literal)?
            $(, as $placeholder:literal)?
            $(, [$($mark:ident)+])? ;
    )* })*) => {
        /// The configuration of one training run: every key with its value. Names and meanings are those of transformers,
        /// PEFT and TRL where they have the key; [`keys`](super::keys) lists all with defaults and help.
        #[derive(Debug, Clone, PartialEq)]
        pub struct TrainConfig {
            $($( $(#[doc = $doc])+ pub $name: $type, )*)*
            /// Options of schemes that are given, by key.
            pub scheme_options: BTreeMap<&'static str, Value>,
            /// Where each value that is not a default came from.
            pub origins: BTreeMap<&'static str, Origin>,
        }

        impl Default for TrainConfig {
            fn default() -> TrainConfig {
                TrainConfig { $($( $name: $default, )*)* scheme_options: BTreeMap::new(), origins: BTreeMap::new() }
            }
        }

        /// All rows, in the order of the documentation.
        pub(super) fn rows() -> Vec<Key> {
            let defaults = TrainConfig::default();
            vec![$($( Key {
                name: stringify!($name),
                aliases: &[$($($alias),+)?],
                section: $section,
                expected: expected::<$type>(&[$($range)?]),
                schema: <$type as KeyType>::schema(),
                default: KeyType::write(&defaults.$name),
                help: [$($doc),+].join("").trim().to_string(),
                form: <$type as KeyType>::FORM,
                placeholder: [$($placeholder,)? <$type as KeyType>::PLACEHOLDER][0],
                marks: &[$($(Mark::$mark),+)?],
            }, )*)*]
        }

        impl TrainConfig {
            /// Sets the key of a row by its own name. The error says what is expected.
            pub(super) fn put_row(&mut self, key: &str, value: &Value) -> Result<(), String> {
                match key {
                    $($( stringify!($name) => {
                        let wrong = || expected::<$type>(&[$($range)?]);
                        let read = <$type as KeyType>::read(value).ok_or_else(wrong)?;
                        $( let ok = |$x: &$type| -> bool { $check }; if !ok(&read) { return Err(wrong()); } )?
                        self.$name = read;
                    } )*)*
                    _ => return Err("a known key".into()),
                }
                Ok(())
            }

            /// The value of the key of a row by its own name, as it is written to files.
            pub(super) fn row_value(&self, key: &str) -> Option<Value> {
                match key {
                    $($( stringify!($name) => Some(KeyType::write(&self.$name)), )*)*
                    _ => None,
                }
            }
        }
    };
}
pub(super) use key_table;
