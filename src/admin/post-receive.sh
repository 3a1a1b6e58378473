#!/bin/sh
# Tells a Runlet control plane of each push. Put this file into the repository as `hooks/post-receive` (mode 755) and
# the secret that `runlet admin project connect` printed into `hooks/runlet.secret` (mode 600). Needs openssl and curl.
# A push waits at most 5 s for it, and never fails because of it.
address='@ADDRESS@'
repository='@REPOSITORY@'

changes=
while read -r before after ref; do
    # A name of a ref may hold quotes, and no backslash or control character.
    case $ref in *\"*) ref=$(printf '%s' "$ref" | sed 's/"/\\"/g') ;; esac
    changes="$changes${changes:+,}{\"ref\":\"$ref\",\"before\":\"$before\",\"after\":\"$after\"}"
done
pusher=$(printf '%s' "${GL_USERNAME:-${REMOTE_USER:-${USER:-}}}" | tr -cd 'A-Za-z0-9._@-')
body="{\"repository\":\"$repository\",\"changes\":[$changes],\"pusher\":\"$pusher\"}"

# HMAC-SHA256 by hand: an argument of openssl would show the secret to everybody on this host.
sha256() {
    openssl dgst -sha256 -r | cut -c1-64
}
# The bytes of $1 (hexadecimal), each mixed with $2, as octal escapes.
escaped() {
    rest=$1 escapes=
    while [ -n "$rest" ]; do
        byte=$((0x${rest%"${rest#??}"} ^ $2))
        escapes="$escapes\\0$((byte / 64))$((byte / 8 % 8))$((byte % 8))"
        rest=${rest#??}
    done
}
not_told() {
    echo "runlet: the control plane was not told of this push: $1"
    exit 0
}
secret=$(cat "$(dirname "$0")/runlet.secret" 2>&1) || not_told "the hook cannot read its secret ($secret): it is what \`runlet admin project connect\` printed"
[ -n "$secret" ] || not_told "$(dirname "$0")/runlet.secret is empty: put the secret there that \`runlet admin project connect\` printed"
for tool in openssl curl; do
    command -v "$tool" > /dev/null || not_told "\`$tool\` is not installed on this host"
done
zeros=0000000000000000000000000000000000000000000000000000000000000000
key=$(printf '%s' "$secret" | sha256)$zeros
escaped "$key" 54
inner=$({ printf '%b' "$escapes"; printf '%s' "$body"; } | sha256)
escaped "$key" 92
outer=$escapes
escaped "$inner" 0
signature=$(printf '%b' "$outer$escapes" | sha256)

answer=$(printf '%s' "$body" | curl --silent --show-error --max-time 5 --write-out ' %{http_code}' --data-binary @- \
    --header 'Content-Type: application/json' --header 'X-Runlet-Event: push' \
    --header "X-Runlet-Signature-256: sha256=$signature" "$address") || not_told "the call failed"
status=${answer##* }
case $status in
2??) ;;
*)
    why=$(printf '%s' "${answer% *}" | tr -d '\r\n' | sed -n 's/.*"message":"\([^"]*\)".*/\1/p')
    echo "runlet: the control plane did not take this push ($status): ${why:-it said nothing}"
    ;;
esac
exit 0
