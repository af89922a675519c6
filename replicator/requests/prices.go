package requests

import "time"

// Prices are what a provider asks for, in dollars, without what is free of
// charge up to some amount and without traffic that leaves the provider.
// Deleting is free at all of them.
type Prices struct {
	Write  float64 // a million PUTs, or requests of multipart uploads
	List   float64 // a million LISTs
	Read   float64 // a million GETs or HEADs
	Stored float64 // a GB for a month
}

// PricesAsOf says when the table was taken from the providers' lists. It is the
// one of docs/storage.md.
const PricesAsOf = "2025"

// prices are by the name that s3.Store.Provider returns.
var prices = map[string]Prices{
	"Amazon S3":     {Write: 5, List: 5, Read: 0.40, Stored: 0.023}, // us-east-1, standard
	"Backblaze B2":  {Write: 0, List: 4, Read: 0.40, Stored: 0.006},
	"Cloudflare R2": {Write: 4.50, List: 4.50, Read: 0.36, Stored: 0.015},
}

// PricesOf returns a provider's prices, false where they are not known. What
// people run themselves has none.
func PricesOf(provider string) (Prices, bool) {
	p, known := prices[provider]
	return p, known
}

// Enough is how long requests are counted before they say anything about a month:
// those of a start would make a fortune of it.
const Enough = time.Hour

const month = 30 * 24 * time.Hour

// Monthly returns what a month costs in which as many requests are sent for each
// hour as were since, a time ago, counting began, and as many bytes are stored as
// now; false before there is Enough to go by.
func (p Prices) Monthly(c *Counts, since time.Duration, stored int64) (dollars float64, known bool) {
	if since < Enough {
		return 0, false
	}
	const million, gigabyte = 1e6, 1e9
	requests := p.Write*float64(c.Total("put", "multipart")) + p.List*float64(c.Total("list")) +
		p.Read*float64(c.Total("get", "head"))
	return requests/million*float64(month)/float64(since) + p.Stored*float64(stored)/gigabyte, true
}
