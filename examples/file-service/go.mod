module example.com/file-service

// The oldest Go that Debian 12 and Ubuntu 22.04 (backports) bring; nothing beyond its standard library is used.
go 1.19
