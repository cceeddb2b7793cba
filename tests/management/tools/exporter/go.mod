module warren-exporter-test

go 1.24

require github.com/kbudde/rabbitmq_exporter v1.0.0
