"""TLS on the client's side: the handshake in user space, then records decrypted by the kernel, or by OpenSSL here."""
