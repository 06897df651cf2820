//! properties: the notes kept with a container.

use serde_json::{Value, json};

use crate::cli::{PropertiesArgs, PropertyAction};
use crate::client::Client;
use crate::stdio;

/// Lists, reads, writes or removes.
pub(super) fn properties(
    client: &Client,
    args: &PropertiesArgs,
    as_json: bool,
) -> anyhow::Result<()> {
    let handle = args.handle.as_str();
    match &args.action {
        None | Some(PropertyAction::List) => list(&client.properties(handle)?, as_json),
        Some(PropertyAction::Get { key }) => {
            let value = client.property(handle, key)?;
            if as_json { stdio::json(&json!({ "value": value })) } else { stdio::line(&value) }
        }
        Some(PropertyAction::Set { key, value }) => client.set_property(handle, key, value),
        Some(PropertyAction::Rm { key }) => client.remove_property(handle, key),
    }
}

fn list(properties: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return match properties {
            Value::Null => stdio::json(&json!({})),
            properties => stdio::json(properties),
        };
    }
    let members = properties.as_object().into_iter().flatten();
    let rows = members.map(|(key, value)| vec![key.clone(), stdio::plain(Some(value))]);
    stdio::table(&["PROPERTY", "VALUE"], rows.collect())
}
