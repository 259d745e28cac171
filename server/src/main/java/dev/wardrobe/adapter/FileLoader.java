package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.model.Model;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Reads PEFT directories and the store, and uploads what it read. */
record FileLoader(
    Model model,
    Backend backend,
    AdapterRoots roots,
    @Nullable AdapterStore store,
    AdapterOptions options)
    implements Loader {

  @Override
  public Candidate read(Origin origin) throws AdapterException {
    AdapterFiles files =
        switch (origin) {
          case Origin.Rooted rooted -> roots.find(rooted.path());
          case Origin.Trusted trusted -> Adapter.trusted(trusted.directory());
          case Origin.Stored stored -> Objects.requireNonNull(store).files(stored.digest());
        };
    Adapter adapter = Adapter.read(files, model, options);
    Facts facts = Facts.of(adapter, backend.loraBytes(adapter.deltas()));
    return new Candidate() {
      @Override
      public Facts facts() {
        return facts;
      }

      @Override
      public long hostBytes() {
        return adapter.hostBytes();
      }

      @Override
      public Lora upload() throws AdapterException {
        try {
          return backend.lora(adapter.deltas(), model::matrix);
        } catch (IllegalArgumentException e) {
          throw new AdapterException(Reason.INVALID, message(e), e);
        }
      }

      @Override
      public void close() {
        adapter.close();
      }
    };
  }
}
