//! Keys of rabbitmq.conf that only say something together.

mod alarms;
mod identity;
mod listeners;
mod log;
mod oauth2;
mod tls;
mod vhosts;

use super::super::origin::Origin;
use super::Translator;

/// Translates all of them. `main` is the place of what RabbitMQ does where its files say nothing.
pub(super) fn translate(translator: &mut Translator<'_>, main: &Origin) {
    listeners::translate(translator, main);
    tls::translate(translator);
    identity::translate(translator);
    oauth2::translate(translator);
    alarms::translate(translator);
    log::translate(translator, main);
    vhosts::translate(translator);
}
