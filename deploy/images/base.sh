#!/bin/sh
# The two bases of the images from Debian's packages, for where no registry is at hand: `deploy/images/base.sh FOLDER`.
# python.tar holds Python and what it stands on: no shell, no package manager. slim.tar is Debian's smallest system with
# Python, for torch. Needs mmdebstrap and the Debian mirror that the machine uses.
set -eu
folder=${1:?"usage: $0 FOLDER"}
mkdir -p "$folder"

mmdebstrap --quiet --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=python3.11-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,libc6,libssl3,tzdata,netbase,base-files \
    --extract-hook='
        set -eu
        cd "$1"
        mkdir ca
        (cd ca && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq download ca-certificates)
        dpkg-deb -x ca/ca-certificates_*.deb ca
        mkdir -p etc/ssl/certs home/nonroot tmp
        cat ca/usr/share/ca-certificates/mozilla/*.crt > etc/ssl/certs/ca-certificates.crt
        chmod 1777 tmp
        for name in python python3; do ln -sf python3.11 usr/bin/$name; done
        printf "%s\n" root:x:0:0:root:/root:/sbin/nologin nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin > etc/passwd
        printf "%s\n" root:x:0: nonroot:x:65532: > etc/group
        # What Python does not stand on, and what nobody reads in a container.
        find usr/bin usr/sbin -mindepth 1 ! -name "python*" -delete
        cd usr
        rm -rf ../ca share/doc share/man share/locale share/lintian share/bug share/info \
            share/perl* share/debconf lib/*/perl* lib/*/gconv lib/dpkg lib/*/libdb-5.3.so lib/*/libpcre2* \
            lib/python3.11/ensurepip lib/python3.11/lib2to3 lib/python3.11/pydoc_data lib/python3.11/test lib/python3.11/turtle*
        find share/zoneinfo -maxdepth 1 \( -name right -o -name posix \) -exec rm -rf {} +' \
    bookworm "$folder/python.tar"

mmdebstrap --quiet --variant=minbase --include=python3,ca-certificates,tzdata \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='ln -sf python3 "$1/usr/bin/python"; rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
    bookworm "$folder/slim.tar"
