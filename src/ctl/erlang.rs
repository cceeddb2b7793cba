//! JSON values as Erlang would print them: `--formatter erlang`, tables of arguments in columns, reasons in errors.

use serde_json::Value;

/// A reason of the management API: a list of a word and more is a tuple there.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .enumerate()
                .map(|(at, item)| match item {
                    Value::String(word) if at == 0 => word.clone(),
                    item => text(item),
                })
                .collect();
            format!("{{{}}}", items.join(","))
        }
        other => term(other),
    }
}

/// A term: strings in double quotes, objects as lists of pairs.
pub(crate) fn term(value: &Value) -> String {
    match value {
        Value::Null => "undefined".to_owned(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(term).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{{{},{}}}", quoted(name), term(value)));
            format!("[{}]", pairs.collect::<Vec<_>>().join(","))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A term of the formatter `erlang`: strings are binaries, objects maps.
pub(crate) fn binary_term(value: &Value) -> String {
    match value {
        Value::String(text) => format!("<<{}>>", quoted(text)),
        Value::Array(items) => format!("[{}]", items.iter().map(binary_term).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("<<{}>> => {}", quoted(name), binary_term(value)));
            format!("#{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        other => term(other),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t"))
}

/// A table of arguments as RabbitMQ's tools give it in JSON: name, type, value.
pub(crate) fn typed(value: &Value) -> Value {
    let Value::Object(fields) = value else { return Value::Array(Vec::new()) };
    let triple = |(name, value): (&String, &Value)| {
        let inner = if value.is_object() { typed(value) } else { value.clone() };
        serde_json::json!([name, kind(value), inner])
    };
    fields.iter().map(triple).collect()
}

/// The name of a field's type, as near as JSON lets it be known.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(_) => "long",
        Value::Array(_) => "array",
        Value::Object(_) => "table",
        Value::Null => "void",
        Value::String(_) => "longstr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let value = serde_json::json!({"b": true, "f": 1.5, "l": ["a", 1], "x": {"y": "z"}});
        assert_eq!(term(&value), r#"[{"b",true},{"f",1.5},{"l",["a",1]},{"x",[{"y","z"}]}]"#);
        assert_eq!(binary_term(&serde_json::json!({"a": "b"})), r#"#{<<"a">> => <<"b">>}"#);
        assert_eq!(typed(&serde_json::json!({"n": 5})).to_string(), r#"[["n","long",5]]"#);
        assert_eq!(term(&serde_json::json!({})), "[]");
    }
}
