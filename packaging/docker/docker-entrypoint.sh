#!/bin/bash
# Prepares a container's broker: who runs it, and what a container needs that the broker's own defaults do not have.
# The broker itself reads WARREN_*, RabbitMQ's variables, and RabbitMQ's files in /etc/rabbitmq: rabbitmq.conf, conf.d/*.conf
# and enabled_plugins.
set -euo pipefail

# Anything but a broker's start runs as it is: rabbitmqctl, bash, ...
starts_broker() {
    case ${1:-} in
        rabbitmq-server) return 0 ;;
        warren) [[ ${2:-serve} == serve || ${2:-} == -* && ${2:-} != -[hV] && ${2:-} != --help && ${2:-} != --version ]] ;;
        *) return 1 ;;
    esac
}

# Refuses a variable whose meaning would be lost.
refuse_variables() {
    local variable refused=
    for variable in \
        RABBITMQ_DEFAULT_PASS_FILE RABBITMQ_DEFAULT_USER_FILE \
        RABBITMQ_MANAGEMENT_SSL_CACERTFILE RABBITMQ_MANAGEMENT_SSL_CERTFILE RABBITMQ_MANAGEMENT_SSL_DEPTH \
        RABBITMQ_MANAGEMENT_SSL_FAIL_IF_NO_PEER_CERT RABBITMQ_MANAGEMENT_SSL_KEYFILE RABBITMQ_MANAGEMENT_SSL_VERIFY \
        RABBITMQ_SSL_CACERTFILE RABBITMQ_SSL_CERTFILE RABBITMQ_SSL_DEPTH RABBITMQ_SSL_FAIL_IF_NO_PEER_CERT \
        RABBITMQ_SSL_KEYFILE RABBITMQ_SSL_VERIFY RABBITMQ_VM_MEMORY_HIGH_WATERMARK; do
        if [[ -n ${!variable:-} ]]; then
            echo "error: $variable is set but deprecated" >&2
            refused=1
        fi
    done
    if [[ -n $refused ]]; then
        echo 'error: deprecated environment variables detected' >&2
        echo >&2
        echo 'Please use /etc/rabbitmq/rabbitmq.conf, /etc/warren/broker.toml or the WARREN_ variables instead' >&2
        exit 1
    fi
}

# A broker.toml among RabbitMQ's files, where there is none of the broker's own and no variable names one.
choose_config() {
    if [[ -z ${WARREN_CONFIG:-} && ! -e /etc/warren/broker.toml && -e /etc/rabbitmq/broker.toml ]]; then
        export WARREN_CONFIG=/etc/rabbitmq/broker.toml
    fi
}

# Sets a key for the broker unless the configuration does so, and only if the broker has it.
container_default() { # section, key, value
    local variable=WARREN_${1^^}__${2^^}
    awk -v section="[$1]" -v key="$2" '
        /^\[/ { inside = $1 == section }
        inside && $1 == key && $2 == "=" && /# default$/ { found = 1 }
        END { exit !found }' <<<"$effective" || return 0
    export "$variable=$3"
}

# Flags alone are the broker's.
if [[ $# == 0 || $1 == -* ]]; then set -- rabbitmq-server "$@"; fi
if ! starts_broker "$@"; then exec "$@"; fi
refuse_variables
choose_config
if [[ $(id -u) == 0 ]]; then
    # Volumes come with any owner.
    find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq:rabbitmq '{}' +
    exec setpriv --reuid rabbitmq --regid rabbitmq --init-groups -- "$0" "$@"
fi

if [[ -e /var/lib/rabbitmq/mnesia ]]; then
    echo "warning: /var/lib/rabbitmq/mnesia holds RabbitMQ's data, which is not read" >&2
fi

flags=("${@:2}")
if [[ ${flags[0]:-} == serve ]]; then flags=("${flags[@]:1}"); fi
# With mistakes in it, the broker tells them itself.
if effective=$(warren config show "${flags[@]}" 2>/dev/null); then
    container_default amqp bind 0.0.0.0
    container_default management bind 0.0.0.0
    container_default prometheus bind 0.0.0.0
    # As in the official image, the first user may log in from anywhere.
    container_default defaults loopback_only '[]'
fi
exec "$@"
