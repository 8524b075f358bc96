//! What the policy promises to those who build on it: decisions by table, properties for every input.

mod branch;
mod check;
mod edges;
mod egress;
mod meet;
mod parse;
mod promises;
mod strategies;
mod token;
