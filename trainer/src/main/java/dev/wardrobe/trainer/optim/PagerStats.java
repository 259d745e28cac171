package dev.wardrobe.trainer.optim;

/**
 * What paging has done so far, and where state lies now.
 *
 * @param pages all there are
 * @param pageBytes of one
 * @param frames pages that fast memory has room for now, those on their way included
 * @param hostBytes in host memory
 * @param fileBytes in the file
 * @param pagesIn brought into fast memory; new pages are made there, not brought
 * @param pagesOut written back
 * @param stalledNanos how long steps waited for pages
 */
public record PagerStats(
    int pages,
    int pageBytes,
    int frames,
    long hostBytes,
    long fileBytes,
    long pagesIn,
    long pagesOut,
    long stalledNanos) {
  /** Bytes of fast memory in use. */
  public long residentBytes() {
    return (long) frames * pageBytes;
  }
}
