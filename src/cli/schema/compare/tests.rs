//! Each rule of the contract, once kept and once broken, on the real schemas where they have the place.

use serde_json::json;

use super::*;
use crate::message::{Event, Task};

/// The changes as they are told, breaking ones first.
fn told(side: Side, old: &Value, new: &Value) -> Vec<String> {
    let mut all = changes(side, old, new);
    all.sort_by_key(|change| !change.breaks);
    all.iter().map(ToString::to_string).collect()
}

fn object(fields: Value, required: Value) -> Value {
    json!({"type": "object", "properties": fields, "required": required})
}

fn task() -> Value {
    schemars::schema_for!(Task).to_value()
}

fn event() -> Value {
    schemars::schema_for!(Event).to_value()
}

fn changed(schema: &Value, change: impl Fn(&mut Value)) -> Value {
    let mut new = schema.clone();
    change(&mut new);
    assert_ne!(&new, schema, "nothing was changed");
    new
}

#[test]
fn a_schema_breaks_nothing_by_staying_as_it_is() {
    for (side, schema) in [(Side::Read, task()), (Side::Sent, event())] {
        assert_eq!(changes(side, &schema, &schema), []);
        let reworded = changed(&schema, |new| new["description"] = json!("Other words."));
        assert_eq!(changes(side, &schema, &reworded), []);
    }
}

#[test]
fn what_is_read_may_get_wider_and_not_narrower() {
    let old = task();
    let one = |change: &dyn Fn(&mut Value)| told(Side::Read, &old, &changed(&old, change));
    let optional = one(&|new| new["properties"]["colour"] = json!({"type": ["string", "null"]}));
    assert_eq!(optional, ["fits /colour: the field is new"]);
    let required = one(&|new| {
        new["properties"]["colour"] = json!({"type": "string"});
        new["required"].as_array_mut().unwrap().push(json!("colour"));
    });
    assert_eq!(required, ["breaks /colour: the required field is new"]);
    let gone = one(&|new| drop(new["properties"].as_object_mut().unwrap().remove("comment")));
    assert_eq!(gone, ["breaks /comment: the field is gone"]);
    let needed = one(&|new| new["required"].as_array_mut().unwrap().push(json!("user")));
    assert_eq!(needed, ["breaks /user: the field became required"]);
    let free = one(&|new| drop(new["required"].as_array_mut().unwrap().remove(0)));
    assert_eq!(free, ["fits /version: the field may be absent"]);
    let default = one(&|new| new["properties"]["comment"]["default"] = json!(true));
    assert_eq!(default, ["breaks /comment: the default false became true"]);
    let word = one(&|new| drop(new["$defs"]["Publish"]["oneOf"].as_array_mut().unwrap().pop()));
    assert_eq!(word, ["breaks /publish: \"on_request\" is gone"]);
    let more = one(&|new| {
        new["$defs"]["Publish"]["oneOf"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "string", "const": "x"}))
    });
    assert_eq!(more, ["fits /publish: \"x\" is new"]);
    let inside = one(&|new| {
        new["$defs"]["User"]["properties"]["id"] = json!({"type": "string"});
        new["$defs"]["User"]["required"]
            .as_array_mut()
            .unwrap()
            .push(json!("id"));
    });
    assert_eq!(inside, ["breaks /user/id: the required field is new"]);
    let list = one(&|new| new["$defs"]["ProjectRequest"]["properties"]["path"] = json!({"type": "integer"}));
    assert!(
        list[0].starts_with("breaks /projects[]/path: type \"string\" became \"integer\""),
        "{list:?}"
    );
    let map = one(&|new| {
        drop(
            new["$defs"]["ConnectionRequest"]["properties"]
                .as_object_mut()
                .unwrap()
                .remove("ca"),
        )
    });
    assert_eq!(map, ["breaks /connections/*/ca: the field is gone"]);
    let null = one(&|new| new["properties"]["title"]["type"] = json!("string"));
    assert_eq!(null, ["breaks /title: null is gone"]);
    let opened = one(&|new| drop(new.as_object_mut().unwrap().remove("additionalProperties")));
    assert_eq!(opened, ["fits /: additionalProperties false became null"]);
    let unknown = one(&|new| new["properties"]["prompt"]["contentEncoding"] = json!("base64"));
    assert_eq!(
        unknown,
        ["breaks /prompt: contentEncoding changed, which is not judged here"]
    );
}

#[test]
fn bounds_and_patterns_are_judged_by_who_reads() {
    let with = |more: Value| {
        let mut field = json!({"type": "string"});
        field.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object(json!({"a": field}), json!(["a"]))
    };
    for (old, new, narrower) in [
        (json!({}), json!({"maxLength": 9}), true),
        (json!({"maxLength": 9}), json!({"maxLength": 8}), true),
        (json!({"minLength": 1}), json!({"minLength": 2}), true),
        (json!({"minLength": 1}), json!({}), false),
        (json!({"maxLength": 8}), json!({"maxLength": 9}), false),
        (json!({}), json!({"pattern": "^a$"}), true),
        (json!({"pattern": "^a$"}), json!({}), false),
        (json!({}), json!({"format": "uuid"}), true),
    ] {
        for (side, breaks) in [(Side::Read, narrower), (Side::Sent, !narrower)] {
            let found = changes(side, &with(old.clone()), &with(new.clone()));
            assert_eq!(
                found.iter().map(|one| one.breaks).collect::<Vec<_>>(),
                [breaks],
                "{side:?} {old} {new}"
            );
        }
    }
    // Another pattern may be neither wider nor narrower.
    for side in [Side::Read, Side::Sent] {
        assert!(changes(side, &with(json!({"pattern": "^a$"})), &with(json!({"pattern": "^b$"})))[0].breaks);
    }
}

#[test]
fn what_is_sent_may_get_richer_and_loses_nothing() {
    let old = event();
    let one = |change: &dyn Fn(&mut Value)| told(Side::Sent, &old, &changed(&old, change));
    let kinds = |new: &mut Value| new["$defs"]["EventData"]["oneOf"].as_array_mut().unwrap().clone();
    let gone = one(&|new| new["$defs"]["EventData"]["oneOf"] = json!(kinds(new)[1..]));
    assert_eq!(gone, ["breaks /data: event=\"rejected\" is gone"]);
    let new_kind = one(&|new| {
        let mut all = kinds(new);
        all.push(object(json!({"event": {"const": "danced"}}), json!(["event"])));
        new["$defs"]["EventData"]["oneOf"] = json!(all);
    });
    assert_eq!(new_kind, ["fits /data: event=\"danced\" is new"]);
    let field = one(&|new| new["$defs"]["EventData"]["oneOf"][1]["properties"]["host"] = json!({"type": "string"}));
    assert_eq!(field, ["fits /data(event=\"claimed\")/host: the field is new"]);
    let lost = one(&|new| {
        new["$defs"]["EventData"]["oneOf"][1]["properties"] = json!({"event": {"type": "string", "const": "claimed"}})
    });
    assert_eq!(lost, ["breaks /data(event=\"claimed\")/worker: the field is gone"]);
    let absent = one(&|new| new["$defs"]["EventData"]["oneOf"][1]["required"] = json!(["event"]));
    assert_eq!(
        absent,
        ["breaks /data(event=\"claimed\")/worker: the field may be absent"]
    );
    let renamed = one(&|new| new["$defs"]["Reason"]["oneOf"][0]["const"] = json!("pushed"));
    assert!(
        renamed[0].starts_with("breaks") && renamed[0].ends_with("\"published\" is gone"),
        "{renamed:?}"
    );
    assert!(
        renamed[1].starts_with("fits") && renamed[1].ends_with("\"pushed\" is new"),
        "{renamed:?}"
    );
    // The coarse results are what an orchestrator decides by: a new one would be decided by nobody.
    let result = one(&|new| {
        new["$defs"]["Outcome"]["oneOf"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "string", "const": "maybe"}))
    });
    assert_eq!(result.len(), 1, "{result:?}");
    assert!(
        result[0].starts_with("breaks") && result[0].ends_with("\"maybe\" is new"),
        "{result:?}"
    );
    let null =
        one(&|new| new["$defs"]["EventData"]["properties"]["seq"] = json!({"type": ["integer", "null"], "minimum": 0}));
    assert!(null.contains(&"breaks /data/seq: null is new".to_owned()), "{null:?}");
}

#[test]
fn forms_are_compared_by_what_they_are_and_not_by_how_they_are_written() {
    let words =
        json!({"oneOf": [{"type": "string", "const": "a", "description": "A."}, {"type": "string", "const": "b"}]});
    let list = json!({"type": "string", "enum": ["a", "b"]});
    for side in [Side::Read, Side::Sent] {
        assert_eq!(changes(side, &words, &list), []);
    }
    let maybe = json!({"$defs": {"W": list}, "anyOf": [{"$ref": "#/$defs/W"}, {"type": "null"}]});
    assert_eq!(told(Side::Read, &list, &maybe), ["fits /: null is new"]);
    assert_eq!(told(Side::Sent, &list, &maybe), ["breaks /: null is new"]);
    // Defaults of a configuration are the operator's to look up, a message's are its meaning.
    let with = |default: u64| json!({"type": "integer", "default": default});
    assert_eq!(
        told(Side::Configured, &with(1), &with(2)),
        ["fits /: the default 1 became 2"]
    );
    assert_eq!(
        told(Side::Read, &with(1), &with(2)),
        ["breaks /: the default 1 became 2"]
    );
    // One that holds itself.
    let tree = |kind: &str| json!({"$defs": {"T": object(json!({"next": {"$ref": "#/$defs/T"}, "a": {"type": kind}}), json!([]))}, "$ref": "#/$defs/T"});
    assert_eq!(
        told(Side::Read, &tree("string"), &tree("integer")),
        ["breaks /a: type \"string\" became \"integer\""]
    );
}

#[test]
fn names_on_the_broker_stay() {
    let old = super::super::asyncapi::document();
    assert_eq!(broker_changes(&old, &old), []);
    let new = changed(&old, |new| {
        new["channels"]["tasks"]["address"] = json!("cofferdam.work");
        new["channels"]["tasks"]["description"] = json!("Other words.");
        new["channels"]["more"] = json!({});
        new["operations"].as_object_mut().unwrap().remove("tell");
    });
    let found: Vec<_> = broker_changes(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(
        found[0],
        "breaks /channels/tasks/address: \"cofferdam.tasks\" became \"cofferdam.work\""
    );
    assert_eq!(found[1], "fits /channels/more: is new");
    assert!(found[2].starts_with("breaks /operations/tell: "), "{found:?}");
}
