#!/bin/sh
# Start what MODE names, through the one launcher; DEBUG changes nothing here.
#   up (default)             api, worker, beat and host in this container, migrations first
#   api worker beat host     one role; migrations first unless MIGRATION_ENABLED=false
#   migration                migrations only, then end
#   job                      one `tidegate` command given as arguments, then end with its code
set -eu

mode="${MODE:-up}"
case "$mode" in
  up)
    exec tidegate up "$@"
    ;;
  api | worker | beat | host)
    case "$*" in
      *--check* | *--print*) ;;
      *) if [ "${MIGRATION_ENABLED:-true}" = true ]; then tidegate migrate; fi ;;
    esac
    exec tidegate "$mode" "$@"
    ;;
  migration)
    exec tidegate migrate "$@"
    ;;
  job)
    exec tidegate "$@"
    ;;
  *)
    echo "tidegate: MODE=$mode is not known: take up, api, worker, beat, host, migration or job" >&2
    exit 78
    ;;
esac
