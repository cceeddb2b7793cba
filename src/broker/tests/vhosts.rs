//! What a new vhost gets, and how many there may be.

use serde_json::{Value, json};

use super::super::auth::{PasswordHash, Permission, User};
use super::super::policy::PolicyKind;
use super::super::{AdministrationError, Broker, BrokerSettings, Existed, Limits, VhostDefaults};
use super::{empty_broker, settings};
use crate::model::names::VhostName;
use crate::model::vhost::VhostMetadata;

fn limits_of(broker: &Broker, vhost: &str) -> Option<Value> {
    let topology = broker.topology();
    let found = topology.vhost(&vhost.into()).unwrap();
    found.parameters.get(&("vhost-limits".into(), "limits".into())).map(|value| (**value).clone())
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value} is no object") };
    map
}

#[test]
fn a_new_vhost_has_what_its_name_gives_it_and_keeps_what_was_changed() {
    let mut vhost_defaults = VhostDefaults::default();
    let policy = json!({"pattern": "^q", "definition": {"max-length": 5}, "apply-to": "queues"});
    vhost_defaults.add_policy("^device", "short", &policy).unwrap();
    vhost_defaults.add_limits("^device-1$", object(json!({"max-queues": 1}))).unwrap();
    vhost_defaults.add_limits("^device", object(json!({"max-queues": 7, "max-connections": 3}))).unwrap();
    assert!(vhost_defaults.add_policy(".*", "bad", &json!({"pattern": "", "definition": {"max-cats": 1}})).is_err());
    let broker = empty_broker(BrokerSettings { vhost_defaults, ..settings(1) });
    broker.add_vhost(&"device-0".into(), VhostMetadata::default());
    for vhost in ["device-1", "device-2", "other"] {
        assert_eq!(broker.put_vhost(&vhost.into(), VhostMetadata::default()), Ok(Existed::No));
    }
    assert_eq!(limits_of(&broker, "device-0"), Some(json!({"max-queues": 7, "max-connections": 3})));
    assert_eq!(limits_of(&broker, "device-1"), Some(json!({"max-queues": 1})), "the first that matches counts");
    assert_eq!(limits_of(&broker, "other"), None);
    let policy_of = |vhost: &str| {
        let topology = broker.topology();
        let policies = &topology.vhost(&vhost.into()).unwrap().policies;
        policies.get(PolicyKind::Operator, "short").map(|policy| policy.definition.clone())
    };
    assert_eq!(policy_of("device-2"), Some(object(json!({"max-length": 5}))));
    assert_eq!(policy_of("other"), None);
    // What operators change later is not set again.
    let vhost: VhostName = "device-2".into();
    assert!(broker.remove_parameter(Some(&vhost), PolicyKind::Operator.component(), "short"));
    let metadata = VhostMetadata { description: "again".to_owned(), ..VhostMetadata::default() };
    assert_eq!(broker.put_vhost(&vhost, metadata), Ok(Existed::Yes));
    assert_eq!(policy_of("device-2"), None);
}

#[test]
fn a_new_vhost_has_its_users_and_those_that_are_there_keep_what_they_log_in_with() {
    let user = |name: &str, password: &[u8], tag: &str| {
        User::new(name.into(), PasswordHash::new([1, 2, 3, 4], password), vec![tag.to_owned()])
    };
    let mut vhost_defaults = VhostDefaults::default();
    let permission = Permission::parse("^q", ".*", "^$").unwrap();
    for name in ["new", "old"] {
        vhost_defaults.add_user("^qa", user(name, b"given", "given"), permission.clone()).unwrap();
    }
    assert!(vhost_defaults.add_user("(", user("bad", b"", ""), permission.clone()).is_err());
    let broker = empty_broker(BrokerSettings { vhost_defaults, ..settings(1) });
    broker.add_user(user("old", b"own", "own")).unwrap();
    broker.add_vhost(&"qa-1".into(), VhostMetadata::default());
    for vhost in ["qa-2", "other"] {
        assert_eq!(broker.put_vhost(&vhost.into(), VhostMetadata::default()), Ok(Existed::No));
    }
    for (name, password, tag) in [("new", b"given".as_slice(), "given"), ("old", b"own", "own")] {
        let found = broker.own_user(&name.into()).unwrap();
        assert!(found.password.matches(password) && found.has_tag(tag), "{name}");
        let permissions: Vec<_> = found.permissions.iter().map(|(vhost, own)| (vhost.as_str(), own)).collect();
        assert_eq!(permissions, [("qa-1", &permission), ("qa-2", &permission)], "{name}");
    }
    // What operators change later is not set again.
    broker.set_permission(&"new".into(), &"qa-1".into(), None).unwrap();
    let metadata = VhostMetadata { description: "again".to_owned(), ..VhostMetadata::default() };
    assert_eq!(broker.put_vhost(&"qa-1".into(), metadata), Ok(Existed::Yes));
    assert_eq!(broker.own_user(&"new".into()).unwrap().permissions.len(), 1);
}

#[test]
fn there_are_no_more_vhosts_than_there_may_be() {
    let broker = empty_broker(BrokerSettings { limits: Limits { vhosts: 2, ..Limits::default() }, ..settings(1) });
    for vhost in ["a", "b"] {
        assert_eq!(broker.put_vhost(&vhost.into(), VhostMetadata::default()), Ok(Existed::No));
    }
    let refused = broker.put_vhost(&"c".into(), VhostMetadata::default());
    assert_eq!(refused, Err(AdministrationError::VhostLimit { vhost: "c".into(), limit: 2 }));
    assert_eq!(refused.unwrap_err().to_string(), "cannot create vhost 'c': vhost limit of 2 is reached");
    let metadata = VhostMetadata { description: "changed".to_owned(), ..VhostMetadata::default() };
    assert_eq!(broker.put_vhost(&"b".into(), metadata), Ok(Existed::Yes), "one that is there can be changed");
    broker.delete_vhost(&"a".into()).unwrap();
    assert_eq!(broker.put_vhost(&"c".into(), VhostMetadata::default()), Ok(Existed::No));
}
