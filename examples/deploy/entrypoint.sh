#!/bin/sh
# Entry point of the container. `exec` matters: a shell that stayed would be process 1,
# swallow SIGTERM and reap nothing.
set -eu

# Secrets as files, the way Docker and Kubernetes mount them, become variables here.
for name in LIVEKIT_URL LIVEKIT_API_KEY LIVEKIT_API_SECRET; do
    file="/run/secrets/$name"
    if [ -r "$file" ]; then
        export "$name=$(cat "$file")"
    fi
done

exec python agent.py "$@"
