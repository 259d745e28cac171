package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Heads;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Attention of one layer, divided among the workers: tiles of a sequence's neighbouring rows by KV
 * heads, each worker's share a stretch of them of about the same cost. A tile that is large beside
 * a share may be cut between chunks of positions, as a single sequence's must be where there are
 * more threads than KV heads.
 *
 * <p>How it is divided shows in no result: a query's state over a chunk is what {@link
 * Kernels#attend} says, and chunks are merged in ascending order, either as they are computed or,
 * if the tile was cut, after all of them.
 */
final class CpuAttention implements WorkerPool.Work {
  /** Queries for which a chunk's keys and values are widened once; bounds working memory. */
  private static final int TILE = 64;

  /** Queries that cost as much as widening does. */
  private static final int WIDENING = 2;

  /** A tile that costs more than this part of a worker's share may be cut. */
  private static final int CUT = 4;

  // A piece of work: chunks FIRST to LAST (exclusive) of a tile.
  private static final int RUN = 0;
  private static final int ROW = 1;
  private static final int ROWS = 2;
  private static final int HEAD = 3;
  private static final int FIRST = 4;
  private static final int LAST = 5;
  private static final int STATES = 6; // where the chunks' states are kept, or WHOLE
  private static final int FIELDS = 7;
  private static final int WHOLE = -1;

  private final Kernels kernels;
  private int[] pieces = new int[64 * FIELDS];
  private int count;
  private int[] begins = new int[2]; // first piece of each worker, and one past the last
  private float[] states = new float[0];

  private List<Batch.Run> runs = List.of();
  private Heads heads = new Heads(1, 1, 2, 1, 0);
  private @Nullable KvPages pages;
  private int layer;
  private float[] q = new float[0];
  private float[] out = new float[0];

  CpuAttention(Kernels kernels) {
    this.kernels = kernels;
  }

  /** Attends; {@code q} and {@code out} are {@code (tokens, heads.queries() · size)}. */
  void run(
      Batch batch,
      Heads heads,
      KvPages pages,
      int layer,
      float[] q,
      float[] out,
      WorkerPool pool,
      int workers) {
    this.runs = batch.runs();
    this.heads = heads;
    this.pages = pages;
    this.layer = layer;
    this.q = q;
    this.out = out;
    divide(workers);
    if (workers == 1) {
      run(0, pool.scratch());
    } else {
      pool.run(this);
    }
    join();
  }

  private void divide(int workers) {
    long total = 0;
    int most = Math.max(1, TILE / group());
    for (int r = 0; r < runs.size(); r++) {
      Batch.Run run = runs.get(r);
      for (int row = run.from(); row < run.to(); row += most) {
        total += cost(run, row, Math.min(most, run.to() - row));
      }
    }
    total *= heads.keyValues();
    if (begins.length < workers + 1) {
      begins = new int[workers + 1];
    }
    count = 0;
    int kept = 0;
    int owner = 0;
    begins[0] = 0;
    long done = 0;
    for (int r = 0; r < runs.size(); r++) {
      Batch.Run run = runs.get(r);
      for (int row = run.from(); row < run.to(); row += most) {
        int rows = Math.min(most, run.to() - row);
        long cost = cost(run, row, rows);
        int first = first(run, row) / Kernels.CHUNK;
        int last = (run.position() + row + rows - 1 - run.from()) / Kernels.CHUNK + 1;
        int parts = cost * CUT * workers > total ? last - first : 1;
        for (int head = 0; head < heads.keyValues(); head++) {
          // Each part belongs to the worker in whose share its middle lies.
          int begin = count;
          for (int part = 0; part < parts; part++) {
            long middle = done + cost * (2L * part + 1) / (2L * parts);
            int next = (int) (middle * workers / total);
            while (owner < next) {
              begins[++owner] = count;
            }
            if (part == 0 || begins[owner] == count) {
              add(r, row, rows, head, first + part);
            }
            pieces[(count - 1) * FIELDS + LAST] = parts == 1 ? last : first + part + 1;
          }
          if (count - begin > 1) {
            for (int i = begin; i < count; i++) {
              pieces[i * FIELDS + STATES] = kept;
              kept += chunks(i) * stateFloats(rows);
            }
          }
          done += cost;
        }
      }
    }
    while (owner < workers) {
      begins[++owner] = count;
    }
    if (states.length < kept) {
      states = new float[Math.max(kept, 2 * states.length)];
    }
  }

  private void add(int run, int row, int rows, int head, int first) {
    int at = count++ * FIELDS;
    if (at == pieces.length) {
      pieces = Arrays.copyOf(pieces, 2 * at);
    }
    pieces[at + RUN] = run;
    pieces[at + ROW] = row;
    pieces[at + ROWS] = rows;
    pieces[at + HEAD] = head;
    pieces[at + FIRST] = first;
    pieces[at + STATES] = WHOLE;
  }

  private int chunks(int piece) {
    return pieces[piece * FIELDS + LAST] - pieces[piece * FIELDS + FIRST];
  }

  private int group() {
    return heads.queries() / heads.keyValues();
  }

  private int stateFloats(int rows) {
    return rows * group() * (Kernels.stateWidth(heads.size()) + 2);
  }

  private long cost(Batch.Run run, int row, int rows) {
    int end = run.position() + row + rows - run.from();
    return (long) (rows * group() + WIDENING) * (end - first(run, row));
  }

  /** The first position that a row sees. */
  private int first(Batch.Run run, int row) {
    int position = run.position() + row - run.from();
    return heads.window() == 0 ? 0 : Math.max(0, position + 1 - heads.window());
  }

  @Override
  public void run(int worker, Scratch scratch) {
    for (int i = begins[worker]; i < begins[worker + 1]; i++) {
      attend(i * FIELDS, scratch);
    }
  }

  private void attend(int piece, Scratch scratch) {
    int rows = pieces[piece + ROWS];
    int floats = stateFloats(rows);
    boolean whole = pieces[piece + STATES] == WHOLE;
    float[] kept = whole ? scratch.states(2 * floats) : states;
    int first = pieces[piece + FIRST];
    for (int chunk = first; chunk < pieces[piece + LAST]; chunk++) {
      if (!whole) {
        attend(piece, chunk, kept, pieces[piece + STATES] + (chunk - first) * floats, scratch);
      } else if (chunk == first) {
        attend(piece, chunk, kept, 0, scratch);
      } else {
        attend(piece, chunk, kept, floats, scratch);
        kernels.merge(kept, floats, 0, rows * group(), heads.size());
      }
    }
    if (whole) {
      kernels.finish(kept, 0, heads, rows, out, query(piece));
    }
  }

  private void attend(int piece, int chunk, float[] kept, int at, Scratch scratch) {
    Batch.Run run = runs.get(pieces[piece + RUN]);
    kernels.attend(
        Objects.requireNonNull(pages),
        layer,
        pieces[piece + HEAD],
        run.blocks(),
        heads,
        run.position() + pieces[piece + ROW] - run.from(),
        pieces[piece + ROWS],
        chunk,
        q,
        query(piece),
        kept,
        at,
        scratch);
  }

  /** Where the tile's first query begins. */
  private int query(int piece) {
    int head = pieces[piece + HEAD] * group();
    return (pieces[piece + ROW] * heads.queries() + head) * heads.size();
  }

  /** Merges the chunks of tiles that were cut. */
  private void join() {
    int into = 0;
    for (int i = 0; i < count; i++) {
      int piece = i * FIELDS;
      int at = pieces[piece + STATES];
      if (at == WHOLE) {
        continue;
      }
      int rows = pieces[piece + ROWS];
      int floats = stateFloats(rows);
      Batch.Run run = runs.get(pieces[piece + RUN]);
      boolean begins = pieces[piece + FIRST] == first(run, pieces[piece + ROW]) / Kernels.CHUNK;
      if (begins) {
        into = at;
      }
      for (int chunk = begins ? 1 : 0; chunk < chunks(i); chunk++) {
        kernels.merge(states, at + chunk * floats, into, rows * group(), heads.size());
      }
      int last = run.position() + pieces[piece + ROW] + rows - 1 - run.from();
      if (pieces[piece + LAST] == last / Kernels.CHUNK + 1) {
        kernels.finish(states, into, heads, rows, out, query(piece));
      }
    }
  }
}
