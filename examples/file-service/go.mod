module example.com/file-service

// What Debian 12 brings; nothing beyond its standard library is used.
go 1.19
