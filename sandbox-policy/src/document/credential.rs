//! The tables that bind credentials.

use std::str::FromStr;

use super::DocumentError;
use super::table::Table;
use crate::{Credential, CredentialName, Credentials, Method, ParseError, PathPattern, PlaceholderShape, Placement};

/// Reads the tables; where there are none, the base's bindings hold.
pub(super) fn read(root: &Table<'_>, base: Credentials) -> Result<Credentials, DocumentError> {
    let Some(tables) = root.tables("credentials")? else {
        return Ok(base);
    };
    let mut all = Credentials::new();
    for table in &tables {
        table.allow_only(&KEYS)?;
        let name: CredentialName = table.string("name")?.ok_or_else(|| absent(table, "name"))?;
        if all.insert(name, read_one(table)?).is_some() {
            return Err(table.refuse("name", "is another credential's, too: write each once"));
        }
    }
    Ok(all)
}

fn read_one(table: &Table<'_>) -> Result<Credential, DocumentError> {
    let host = table.string("host")?.ok_or_else(|| absent(table, "host"))?;
    let variable = table.string("variable")?.ok_or_else(|| absent(table, "variable"))?;
    let placement = match (table.string("header")?, table.string("basic")?) {
        (Some(name), None) => Placement::Header { name },
        (None, Some(user)) => Placement::Basic { user },
        (None, None) => return Err(table.refuse("header", "is absent: write header or basic")),
        (Some(_), Some(_)) => return Err(table.refuse("basic", "stands beside header: write one of the two")),
    };
    for key in ["methods", "paths"] {
        if table.strings::<Text>(key)?.is_some_and(|words| words.is_empty()) {
            return Err(table.refuse(key, "[] is empty: write one, or leave it out"));
        }
    }
    let default = PlaceholderShape::default();
    let prefix = table.string::<Text>("prefix")?.map_or_else(|| default.prefix().to_owned(), |text| text.0);
    let length = table.number::<Length>("length")?.map_or(default.length(), |length| length.0);
    let shape = PlaceholderShape::new(&prefix, length).map_err(|error| table.refuse("length", &error.to_string()))?;
    Ok(Credential::new(host, placement, variable)
        .with_shape(shape)
        .with_methods(table.strings::<Method>("methods")?.into_iter().flatten())
        .with_paths(table.strings::<PathPattern>("paths")?.into_iter().flatten()))
}

/// Writes the tables; with none, the line that says so stands at the top.
pub(super) fn write(credentials: &Credentials, text: &mut String) {
    for (name, credential) in credentials {
        text.push_str("\n[[credentials]]\n");
        text.push_str(&credential.document(name));
    }
}

fn absent(table: &Table<'_>, key: &str) -> DocumentError {
    table.refuse(key, "is absent: a credential needs a name, a host, a variable, and header or basic")
}

struct Length(u16);

impl FromStr for Length {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParseError::new("a length", text, "write a whole number up to 512"))
    }
}

struct Text(String);

impl FromStr for Text {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

const KEYS: [&str; 9] = ["name", "host", "header", "basic", "variable", "prefix", "length", "methods", "paths"];
