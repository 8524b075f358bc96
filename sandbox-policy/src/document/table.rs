//! One table of a document: its known keys, read into types.

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::DocumentError;
use crate::ParseError;
use crate::parse::clip;

/// Holds one table, and what is needed to say where in the text a thing is.
pub(super) struct Table<'d> {
    text: &'d str,
    name: Option<String>,
    entries: &'d DeTable<'d>,
}

impl<'d> Table<'d> {
    /// Makes the table that holds the whole document.
    pub(super) fn root(text: &'d str, entries: &'d DeTable<'d>) -> Self {
        Self { text, name: None, entries }
    }

    /// Refuses every key but the known ones.
    pub(super) fn allow_only(&self, known: &[&str]) -> Result<(), DocumentError> {
        let unknown = self
            .entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.get_ref().as_ref()))
            .min_by_key(|(key, _)| key.span().start);
        match unknown {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("is not a known key: write one of {}", known.join(" "));
                let path = self.path(&clip(key.get_ref()));
                Err(DocumentError::new(self.text, key.span().start, Some(path), message))
            }
        }
    }

    /// Reads a section, a table in this one.
    pub(super) fn section(&self, key: &'static str) -> Result<Option<Self>, DocumentError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::Table(entries) => Ok(Some(Self { text: self.text, name: Some(self.path(key)), entries })),
                _ => Err(self.refuse(key, &format!("is not a section: write [{key}]"))),
            },
        }
    }

    /// Reads an array of tables.
    pub(super) fn tables(&self, key: &'static str) -> Result<Option<Vec<Self>>, DocumentError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let advice = format!("is not a list of tables: write [[{}]]", self.path(key));
        let DeValue::Array(values) = value.get_ref() else { return Err(self.refuse(key, &advice)) };
        let table = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| match value.get_ref() {
            DeValue::Table(entries) => {
                Ok(Self { text: self.text, name: Some(format!("{}[{index}]", self.path(key))), entries })
            }
            _ => Err(self.refuse(key, &advice)),
        };
        values.iter().enumerate().map(table).collect::<Result<_, _>>().map(Some)
    }

    /// Reads an array of whole numbers or decimals.
    pub(super) fn numbers<T>(&self, key: &str) -> Result<Option<Vec<T>>, DocumentError>
    where
        T: FromStr<Err = ParseError>,
    {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.mismatch::<T>(key, value.span(), "write numbers in brackets"));
        };
        values.iter().map(|value| self.parse_number(key, value)).collect::<Result<_, _>>().map(Some)
    }

    /// Reads a string.
    pub(super) fn string<T>(&self, key: &str) -> Result<Option<T>, DocumentError>
    where
        T: FromStr<Err = ParseError>,
    {
        self.get(key).map(|value| self.parse_string(key, value)).transpose()
    }

    /// Reads a string, or an array of them.
    pub(super) fn strings<T>(&self, key: &str) -> Result<Option<Vec<T>>, DocumentError>
    where
        T: FromStr<Err = ParseError>,
    {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let values = match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            _ => vec![value],
        };
        values.into_iter().map(|value| self.parse_string(key, value)).collect::<Result<_, _>>().map(Some)
    }

    /// Reads a whole number or a decimal.
    pub(super) fn number<T>(&self, key: &str) -> Result<Option<T>, DocumentError>
    where
        T: FromStr<Err = ParseError>,
    {
        self.get(key).map(|value| self.parse_number(key, value)).transpose()
    }

    /// Makes an error about a key; where the key is absent, at the start of the document.
    pub(super) fn refuse(&self, key: &str, message: &str) -> DocumentError {
        let offset = self.get(key).map_or(0, |value| value.span().start);
        DocumentError::new(self.text, offset, Some(self.path(key)), message.to_owned())
    }

    fn parse_number<T>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<T, DocumentError>
    where
        T: FromStr<Err = ParseError>,
    {
        let parsed = match value.get_ref() {
            DeValue::Integer(number) => number.to_string().parse(),
            DeValue::Float(number) => number.as_str().parse(),
            _ => return Err(self.mismatch::<T>(key, value.span(), "write it without quotes")),
        };
        parsed.map_err(|error| self.value_error(key, value.span(), &error))
    }

    fn parse_string<T>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<T, DocumentError>
    where
        T: FromStr<Err = ParseError>,
    {
        match value.get_ref() {
            DeValue::String(text) => text.parse().map_err(|error| self.value_error(key, value.span(), &error)),
            _ => Err(self.mismatch::<T>(key, value.span(), "write it in quotes")),
        }
    }

    /// Makes an error about a value of the wrong TOML type, with what the right type would have
    /// said of it.
    fn mismatch<T>(&self, key: &str, span: Range<usize>, advice: &str) -> DocumentError
    where
        T: FromStr<Err = ParseError>,
    {
        let given = self.text.get(span.clone()).unwrap_or("");
        let error = match given.parse::<T>() {
            Err(error) => error,
            Ok(_) => ParseError::new("of the right type", given, advice),
        };
        self.value_error(key, span, &error)
    }

    fn value_error(&self, key: &str, span: Range<usize>, error: &ParseError) -> DocumentError {
        DocumentError::value(self.text, span.start, self.path(key), error)
    }

    /// Tells whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        let mut entries = self.entries.iter();
        entries.find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    fn path(&self, key: &str) -> String {
        match &self.name {
            Some(name) => format!("{name}.{key}"),
            None => key.to_owned(),
        }
    }
}
