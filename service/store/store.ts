// store.ts - what the service calls a store. Routes reach the storage core through this folder only.
export {
  type Maybe,
  type ReadResult,
  type Store,
  StoreError,
} from "../../native/index.js";
