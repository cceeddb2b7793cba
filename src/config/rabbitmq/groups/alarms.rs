//! The memory watermark and the limit of free disk space.

use super::super::super::raw::RawValue;
use super::super::Translator;
use super::super::conf::Line;
use super::super::value::{information, share};

/// RabbitMQ's own watermark, in thousandths.
const USUAL_SHARE: u64 = 600;

pub(super) fn translate(translator: &mut Translator<'_>) {
    let memory = size(translator, "total_memory_available_override_value");
    alarm(translator, "vm_memory_high_watermark", "memory.high_watermark", memory);
    alarm(translator, "disk_free_limit", "storage.disk_free_limit", memory);
    if let (Some(memory), Some(line)) = (memory, translator.conf.get("total_memory_available_override_value"))
        && translator.conf.get("vm_memory_high_watermark.relative").is_none()
        && translator.conf.get("vm_memory_high_watermark.absolute").is_none()
    {
        let bytes = memory / 1000 * USUAL_SHARE;
        translator.set("memory.high_watermark", line.origin.clone(), RawValue::Text(format!("{bytes}B")));
    }
}

/// A size by its key; None if it is not there, or unreadable.
fn size(translator: &mut Translator<'_>, key: &str) -> Option<u64> {
    read(translator, key, information).map(|(_, size)| size)
}

fn read<'a>(
    translator: &mut Translator<'a>,
    key: &str,
    read: impl Fn(&str) -> Result<u64, String>,
) -> Option<(&'a Line, u64)> {
    let line = translator.conf.get(key)?;
    let text = translator.text(line)?;
    match read(&text) {
        Ok(value) => Some((line, value)),
        Err(expected) => {
            translator.unreadable(line, &expected);
            None
        }
    }
}

/// A limit in bytes, or as a share of the memory: of `memory` bytes, where that is told.
fn alarm(translator: &mut Translator<'_>, key: &str, path: &'static str, memory: Option<u64>) {
    let absolute = read(translator, &format!("{key}.absolute"), information);
    let relative = read(translator, &format!("{key}.relative"), share);
    if let Some((line, bytes)) = absolute {
        translator.set(path, line.origin.clone(), RawValue::Text(format!("{bytes}B")));
        if let Some((relative, _)) = relative {
            translator.remark(relative, &format!("{key}.absolute goes before it"));
        }
        return;
    }
    let Some((line, thousandths)) = relative else { return };
    let text = match memory {
        Some(memory) => format!("{}B", memory / 1000 * thousandths),
        None => {
            let percent = (thousandths + 5) / 10;
            if !thousandths.is_multiple_of(10) {
                translator.remark(line, &format!("is taken as {percent}%"));
            }
            format!("{percent}%")
        }
    };
    translator.set(path, line.origin.clone(), RawValue::Text(text));
}
